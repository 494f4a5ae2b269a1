// The saved subjects as pictures, by the host's own routes for the files of models.

import { api } from "/scripts/api.js";
import { make } from "./elements.mjs";
import { text } from "./texts.mjs";

const FOLDER = "moa_subjects";
const SIDE = 72;

/** The type of what is dragged from a card. */
export const DRAGGED = "application/x-moa-subject";

/** A card for each saved subject; `choose(name)` is called when it is clicked, `chosen` is framed. */
export async function subjectCards(choose, chosen) {
    const answer = await api.fetchApi(`/experiment/models/${FOLDER}`);
    const files = answer.ok ? await answer.json() : [];
    return files.map((file) => card(file, choose, file.name === chosen));
}

function card({ name, pathIndex }, choose, framed) {
    const border = `2px solid ${framed ? "var(--p-primary-color, #5b9df9)" : "transparent"}`;
    const element = make("button", {
        className: "moa-subject",
        title: name,
        draggable: true,
        style: `width: ${SIDE}px; padding: 0; border: ${border}; border-radius: 6px; background: none; color: inherit; cursor: pointer`,
        onclick: () => choose(name),
        ondragstart: (event) => event.dataTransfer.setData(DRAGGED, name),
    });
    const file = name.split("/").map(encodeURIComponent).join("/");
    const label = make("div", { style: "font-size: 11px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap" }, [title(name)]);
    const picture = make("img", {
        alt: text("noPicture"),
        src: api.apiURL(`/experiment/models/preview/${FOLDER}/${pathIndex}/${file}`),
        draggable: false,
        style: `width: 100%; height: ${SIDE}px; object-fit: cover; border-radius: 4px; background: var(--comfy-input-bg)`,
    });
    element.append(picture, label);
    describe(element, name);
    return element;
}

/** A file's name without its folder, number and ending. */
function title(name) {
    return name.replace(/^.*[\\/]/, "").replace(/(_\d{5}_)?\.safetensors$/, "");
}

/** Word and licence note of a subject, from its file's header. */
async function describe(element, name) {
    const answer = await api.fetchApi(`/view_metadata/${FOLDER}?filename=${encodeURIComponent(name)}`);
    const { word, licence } = answer.ok ? await answer.json() : {};
    if (word) element.title = `${name}\n${text("word", { word })}\n${text("licence", { licence: licence ?? text("noNote") })}`;
}
