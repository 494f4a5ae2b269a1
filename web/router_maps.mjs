// Reads the sheet of a run's maps, and draws a choice of them over the finished picture.

import { COLOURS } from "./elements.mjs";

const OPACITY = 0.85;

/** The maps of one picture: `index` as `MapSheet.index` of the node describes it. */
export class RouterMaps {
    constructor(index, picture, sheet) {
        this.index = index;
        this.picture = grey(picture);
        this.sheet = copied(sheet);
    }

    /** The mean share of a subject in a step and a layer, 0 to 255 by pixel; -1 is the mean over all of them. */
    mean(subject, step, layer) {
        const [width, height] = this.index.cell;
        const chosen = (choice, all) => (choice < 0 ? all.map((_, each) => each) : [choice]);
        const total = new Float32Array(width * height);
        const steps = chosen(step, this.index.steps);
        const layers = chosen(layer, this.index.layers);
        for (const k of steps) {
            for (const l of layers) {
                const top = (subject * this.index.steps.length + k) * height;
                const { data } = this.sheet.getImageData(l * width, top, width, height);
                for (let i = 0; i < total.length; i++) total[i] += data[4 * i];
            }
        }
        return total.map((sum) => sum / (steps.length * layers.length));
    }

    /** Draw a subject, or with -1 each in its colour, over a grey copy of the picture. */
    draw(canvas, subject, step, layer) {
        const context = canvas.getContext("2d");
        [canvas.width, canvas.height] = [this.picture.width, this.picture.height];
        context.drawImage(this.picture, 0, 0);
        context.imageSmoothingQuality = "high";
        const subjects = subject < 0 ? this.index.subjects.map((_, each) => each) : [subject];
        for (const each of subjects) {
            context.drawImage(this.tinted(each, step, layer), 0, 0, canvas.width, canvas.height);
        }
    }

    /** A small picture in the subject's colour, the more opaque the larger its share. */
    tinted(subject, step, layer) {
        const [width, height] = this.index.cell;
        const colour = COLOURS[subject % COLOURS.length];
        const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
        const pixels = new ImageData(width, height);
        this.mean(subject, step, layer).forEach((share, i) => {
            const opacity = OPACITY * Math.min(1, share / 255 / Math.max(this.index.largest, 1e-6));
            pixels.data.set([red, green, blue, 255 * opacity], 4 * i);
        });
        const canvas = new OffscreenCanvas(width, height);
        canvas.getContext("2d").putImageData(pixels, 0, 0);
        return canvas;
    }
}

/** The context of a canvas with a picture. */
function copied(picture) {
    const canvas = new OffscreenCanvas(picture.naturalWidth, picture.naturalHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return context;
}

/** A canvas with the mean of the picture's colours, as the node's own pictures have it. */
function grey(picture) {
    const context = copied(picture);
    const pixels = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
    const { data } = pixels;
    for (let i = 0; i < data.length; i += 4) data.fill((data[i] + data[i + 1] + data[i + 2]) / 3, i, i + 3);
    context.putImageData(pixels, 0, 0);
    return context.canvas;
}
