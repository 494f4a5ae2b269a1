// Which words of a prompt carry subjects. As `nodes/host/prompts/prompt_words.py` finds them, but on the text instead of its tokens:
// the page has no tokenizer.

const WORD = /\p{L}+/gu;
const SHORTEST_NEAR = 3;

/** Places `[start, end]` of a word or phrase in a text, as a word of its own, without regard to case. */
export function occurrences(text, word) {
    const parts = word.trim().split(/\s+/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    if (!parts[0]) return [];
    const whole = new RegExp(`(?<!\\p{L})${parts.join("\\s+")}(?!\\p{L})`, "giu");
    return [...text.matchAll(whole)].map((match) => [match.index, match.index + match[0].length]);
}

/** Longer words of a text that contain a word, such as "salaryman" with "man". */
export function wordsAround(text, word) {
    const wanted = word.trim().toLowerCase();
    return distinct(text).filter((other) => other.length > wanted.length && other.includes(wanted));
}

/** Words of a text that may be meant by a word it does not contain, the nearest first: "women" for "woman". */
export function nearMisses(text, word) {
    const wanted = word.trim().toLowerCase();
    const most = Math.max(1, Math.floor(wanted.length / 3));
    return distinct(text)
        .filter((other) => other.length >= SHORTEST_NEAR && other !== wanted)
        .map((other) => [isStem(wanted, other) ? 1 : distance(wanted, other), other])
        .filter(([far]) => far <= most)
        .sort(([one], [other]) => one - other)
        .map(([, other]) => other);
}

/**
 * The place of each subject's word, or what is wrong with it.
 *
 * @param subjects `{word, occurrence}`; a word of null is one that only the run shows.
 * @returns for each `{place}`, `{problem, offers}` or `{}`; a problem is the name of a text and its values.
 */
export function bind(text, subjects) {
    const taken = new Map();
    return subjects.map(({ word, occurrence }, index) => {
        if (word === null) return {};
        const place = occurrences(text, word)[occurrence - 1];
        if (!place) return missing(text, word, occurrence, subjects);
        const first = taken.get(place[0]);
        if (first !== undefined) return { problem: ["taken", { number: first + 1, word }], offers: [] };
        taken.set(place[0], index);
        return { place };
    });
}

function missing(text, word, occurrence, subjects) {
    const found = occurrences(text, word).length;
    if (found) return { problem: ["fewer", { word, found, occurrence }], offers: [] };
    const around = wordsAround(text, word)
        .map((other) => `'${other}'`)
        .join(", ");
    const others = subjects.map((each) => each.word?.trim().toLowerCase());
    const offers = nearMisses(text, word).filter((other) => !others.includes(other));
    return { problem: [around ? "onlyInside" : "missing", { word, around }], offers };
}

function distinct(text) {
    return [...new Set(text.toLowerCase().match(WORD) ?? [])];
}

function isStem(one, other) {
    const [short, long] = one.length < other.length ? [one, other] : [other, one];
    return short.length >= SHORTEST_NEAR && long.startsWith(short) && long.length - short.length <= 3;
}

/** Levenshtein's distance. */
function distance(one, other) {
    let row = Array.from({ length: other.length + 1 }, (_, j) => j);
    for (let i = 1; i <= one.length; i++) {
        const next = [i];
        for (let j = 1; j <= other.length; j++) {
            next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (one[i - 1] === other[j - 1] ? 0 : 1)));
        }
        row = next;
    }
    return row[other.length];
}
