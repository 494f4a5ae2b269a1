// The subjects that the graph connects to a prompt, and their words.

import { api } from "/scripts/api.js";

const BYPASSED = 4;
const MUTED = 2;
const PASSED_ON = { MoASubjectSettings: "subject", MoASubjectBlend: "first", MoASubjectCombine: "subjects.", Reroute: "" };
const savedWords = new Map();

/**
 * The subjects at a prompt's inputs, in their order.
 *
 * @returns of each `{word, occurrence, rename}`. `word` is null where the graph does not show it; `rename(word)`, where the word
 *     can be changed, changes it.
 */
export function connectedSubjects(prompt) {
    return prompt.inputs
        .map((input, slot) => (input.name.startsWith("subjects.") && input.link != null ? sourceOf(prompt, slot) : undefined))
        .filter((source) => source !== undefined)
        .map(subjectOf);
}

/** The node that makes what arrives at an input; null where the graph does not show it, undefined where nothing arrives. */
function sourceOf(node, slot) {
    const source = node.getInputNode(slot);
    if (!source) return null;
    if (source.mode === MUTED) return undefined;
    const passed = source.mode === BYPASSED ? "" : PASSED_ON[source.type];
    if (passed === undefined) return source;
    const next = source.inputs.findIndex((input) => input.name.startsWith(passed) && input.link != null);
    return next < 0 ? undefined : sourceOf(source, next);
}

function subjectOf(source) {
    const word = source && widgetOf(source, "word");
    if (!word) return { word: null, occurrence: 1 };
    const file = source.type === "MoALoadSubject" ? widgetOf(source, "subject_file")?.value : undefined;
    const saved = file === undefined ? {} : savedSubject(file);
    const linked = source.inputs.some((input) => input.widget?.name === "word" && input.link != null);
    return {
        word: linked ? null : word.value.trim() || (saved.word ?? null),
        occurrence: widgetOf(source, "occurrence").value || Number(saved.occurrence ?? 1),
        rename: linked ? undefined : (other) => change(source, word, other),
    };
}

function widgetOf(node, name) {
    return node.widgets?.find((widget) => widget.name === name);
}

function change(node, widget, value) {
    widget.value = value;
    widget.callback?.(value);
    node.graph.setDirtyCanvas(true, true);
}

/** The header of a file in the subjects' folder: empty until the server has answered, then as saved. */
function savedSubject(file) {
    if (!savedWords.has(file)) {
        savedWords.set(file, {});
        api.fetchApi(`/view_metadata/moa_subjects?filename=${encodeURIComponent(file)}`)
            .then((answer) => (answer.ok ? answer.json() : {}))
            .then((header) => savedWords.set(file, header));
    }
    return savedWords.get(file);
}
