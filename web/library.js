// Saved subjects as pictures: on Load Subject, and in a tab of the page's sidebar, from which they are dragged into the graph.

import { app } from "/scripts/app.js";
import { make } from "./elements.mjs";
import { DRAGGED, subjectCards } from "./subject_cards.mjs";
import { text } from "./texts.mjs";

const LOADER = "MoALoadSubject";
const ROW = "display: flex; flex-wrap: wrap; gap: 4px; overflow: auto";
const HEIGHT = 110;

app.registerExtension({
    name: "MoA.Library",
    nodeCreated(node) {
        if (node.comfyClass === LOADER) addCards(node);
    },
    setup() {
        addTab();
        window.addEventListener("dragover", (event) => event.dataTransfer?.types.includes(DRAGGED) && event.preventDefault());
        window.addEventListener("drop", drop, { capture: true });
    },
});

/** The cards on the node; a click chooses. They are neither saved nor sent. */
function addCards(node) {
    const element = make("div", { className: "moa-subjects", style: ROW });
    const height = () => (element.childElementCount ? HEIGHT : 0);
    const options = { serialize: false, getMinHeight: height, getMaxHeight: height };
    node.addDOMWidget("library", "moa_library", element, options).serialize = false;
    const file = node.widgets.find((widget) => widget.name === "subject_file");
    const fill = async () => {
        const cards = await subjectCards((name) => {
            file.value = name;
            file.callback?.(name);
            fill();
        }, file.value);
        element.replaceChildren(...cards);
        const [width, high] = node.size;
        node.setSize([width, Math.max(high, node.computeSize()[1])]);
        node.setDirtyCanvas(true, true);
    };
    requestAnimationFrame(fill);
}

function addTab() {
    app.extensionManager.registerSidebarTab({
        id: "moa-subjects",
        icon: "pi pi-users",
        title: text("subjects"),
        tooltip: text("savedSubjects"),
        type: "custom",
        render: async (element) => {
            const cards = await subjectCards((name) => addLoader(name, centre()));
            element.replaceChildren(make("div", { className: "moa-library", style: `${ROW}; padding: 8px` }, cards.length ? cards : [text("noSubjects")]));
        },
    });
}

function drop(event) {
    const name = event.dataTransfer?.getData(DRAGGED);
    if (!name || event.target.closest?.(".moa-library")) return;
    event.preventDefault();
    event.stopPropagation();
    addLoader(name, app.canvas.convertEventToCanvasOffset(event));
}

function addLoader(name, place) {
    const node = window.LiteGraph.createNode(LOADER);
    node.pos = place;
    app.canvas.graph.add(node);
    node.widgets.find((widget) => widget.name === "subject_file").value = name;
}

/** The middle of what the canvas shows. */
function centre() {
    const [x, y, width, height] = app.canvas.visible_area;
    return [x + width / 2, y + height / 2];
}
