// MoA Text Encode: the prompt's words that carry subjects in the subjects' colours, and what is wrong with the others.

import { app } from "/scripts/app.js";
import { connectedSubjects } from "./connected_subjects.mjs";
import { COLOURS, addContent, make } from "./elements.mjs";
import { bind } from "./prompt_words.mjs";
import { text } from "./texts.mjs";

const NEIGHBOURS = 2;
const EVERY_MS = 250;
const HIGHEST = 120;

app.registerExtension({
    name: "MoA.Prompt",
    nodeCreated(node) {
        if (node.comfyClass === "MoATextEncode") addHelper(node);
    },
});

/** The element shows the state of the graph. */
function addHelper(node) {
    const words = make("div");
    const element = make("div", { className: "moa-prompt", style: "font-size: 12px; line-height: 1.5; overflow: auto" }, [words]);
    addContent(node, "words", "moa_words", element, words, HIGHEST);
    let shown;
    // The page has no event for a change of another node's word or of a link further away.
    const timer = setInterval(() => {
        if (!node.graph) return;
        const prompt = promptOf(node);
        const subjects = connectedSubjects(node);
        const state = JSON.stringify([prompt, subjects]);
        if (state === shown) return;
        shown = state;
        words.replaceChildren(...lines(prompt, subjects));
    }, EVERY_MS);
    const removed = node.onRemoved;
    node.onRemoved = function () {
        clearInterval(timer);
        removed?.apply(this, arguments);
    };
}

/** The text of a prompt; null where another node makes it. */
function promptOf(node) {
    const linked = node.inputs.some((input) => input.widget?.name === "text" && input.link != null);
    return linked ? null : node.widgets.find((widget) => widget.name === "text").value;
}

function lines(prompt, subjects) {
    if (prompt === null || !subjects.length) return [];
    const bound = bind(prompt, subjects);
    const wrong = bound.flatMap((each, index) => (each.problem ? [warning(each, subjects[index], index)] : []));
    return [make("div", {}, excerpt(prompt, bound)), ...wrong];
}

/** The words of the subjects in their colours, between their neighbours. */
function excerpt(prompt, bound) {
    const places = bound.map(({ place }, index) => place && { start: place[0], end: place[1], index }).filter(Boolean);
    places.sort((one, other) => one.start - other.start);
    let shown = 0;
    const parts = places.flatMap(({ start, end, index }) => {
        const before = neighbours(prompt.slice(shown, start), shown > 0, true);
        shown = end;
        return [before, coloured(prompt.slice(start, end), index)];
    });
    return places.length ? [...parts, neighbours(prompt.slice(shown), true, false)] : [];
}

function coloured(word, index) {
    const style = `background: ${COLOURS[index % COLOURS.length]}; color: #000; border-radius: 3px; padding: 0 3px`;
    return make("mark", { style, title: text("subjectNumber", { number: index + 1 }) }, [word]);
}

/** The words of a part of the prompt that are next to a subject before it, after it, or both. */
function neighbours(part, after, before) {
    const words = part.match(/\s*\S+(?:\s+$)?/g) ?? [part];
    const kept = (after ? NEIGHBOURS : 0) + (before ? NEIGHBOURS : 0);
    if (words.length <= kept + 1) return part;
    return [...(after ? words.slice(0, NEIGHBOURS) : []), " …", ...(before ? words.slice(-NEIGHBOURS) : [])].join("");
}

function warning({ problem, offers }, { rename }, index) {
    const buttons = rename ? offers.map((word) => offer(word, rename)) : [];
    return make("div", { style: "color: var(--error-text)" }, [coloured(index + 1, index), ` ${text(...problem)} `, ...buttons]);
}

function offer(word, rename) {
    const title = text("binds", { word });
    return make("button", { style: "margin-right: 4px; cursor: pointer", title, onclick: () => rename(word) }, [text("use", { word })]);
}
