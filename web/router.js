// Visualize MoA Router: sliders for step, layer and subject over the finished picture.

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";
import { addContent, make } from "./elements.mjs";
import { RouterMaps } from "./router_maps.mjs";
import { text } from "./texts.mjs";

const LINE = 24;

app.registerExtension({
    name: "MoA.Router",
    nodeCreated(node) {
        if (node.comfyClass === "RouterVisualize") addExplorer(node);
    },
});

/** A button once there are maps; it opens the picture with its sliders. */
function addExplorer(node) {
    const content = make("div", { style: "display: flex; flex-direction: column; gap: 2px; font-size: 12px" });
    const element = make("div", { className: "moa-router", style: "overflow: hidden" }, [content]);
    addContent(node, "maps", "moa_maps", element, content);
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
        executed?.apply(this, arguments);
        const found = output?.moa_maps ?? [];
        const open = content.querySelector("canvas") !== null;
        content.replaceChildren(...(found.length ? [opener(found, content, open)] : []));
    };
}

function opener(found, content, open) {
    const button = make("button", { style: `height: ${LINE}px; cursor: pointer`, textContent: text("showMaps") });
    button.onclick = async () => {
        const maps = await Promise.all(found.map(load));
        content.replaceChildren(...explorer(maps));
    };
    if (open) button.onclick();
    return button;
}

async function load(index) {
    const [picture, sheet] = await Promise.all([index.picture, index.sheet].map(loadImage));
    return new RouterMaps(index, picture, sheet);
}

async function loadImage(file) {
    const image = new Image();
    image.src = api.apiURL(`/view?${new URLSearchParams(file)}`);
    await image.decode();
    return image;
}

/** The canvas and a slider for each choice of more than one. */
function explorer(maps) {
    const { index, picture } = maps[0];
    const style = `width: 100%; aspect-ratio: ${picture.naturalWidth} / ${picture.naturalHeight}`;
    const canvas = make("canvas", { style });
    const chosen = { picture: 0, subject: -1, step: -1, layer: -1 };
    const draw = () => maps[chosen.picture].draw(canvas, chosen.subject, chosen.step, chosen.layer);
    const choices = { picture: maps.map((_, each) => each + 1), step: index.steps, layer: index.layers, subject: index.subjects };
    const sliders = Object.entries(choices)
        .filter(([, options]) => options.length > 1)
        .map(([name, options]) =>
            slider(name, options, chosen[name], (choice) => {
                chosen[name] = choice;
                draw();
            })
        );
    draw();
    return [canvas, ...sliders];
}

/** A slider over options; its first place, -1, means all of them. */
function slider(name, options, first, choose) {
    const value = make("span", { style: "flex: 0 0 40%; overflow: hidden; text-overflow: ellipsis; white-space: nowrap" });
    const input = make("input", { type: "range", min: first, max: options.length - 1, value: first, ariaLabel: text(name) });
    input.style.cssText = "flex: 1; min-width: 0";
    const show = () => (value.textContent = `${text(name)}: ${input.value < 0 ? text("all") : options[input.value]}`);
    input.oninput = () => {
        show();
        choose(Number(input.value));
    };
    show();
    return make("label", { style: `display: flex; gap: 6px; height: ${LINE}px; align-items: center` }, [value, input]);
}
