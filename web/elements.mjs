// What the widgets of this extension share.

/** Of subjects, in their order: those of `moa_attention/pictures.py`. */
export const COLOURS = ["#e59e00", "#57b5e8", "#009e73", "#f0e342", "#cc78a6", "#d65e00", "#0073b2", "#b2b2b2"];

const MARGIN = 6;

/**
 * Adds a widget that shows `content`, inside `element`, as high as it is but at most `highest`. It is neither saved nor sent.
 */
export function addContent(node, name, type, element, content, highest = Infinity) {
    const height = () => Math.min(highest, content.offsetHeight && content.offsetHeight + 2 * MARGIN);
    const options = { serialize: false, margin: MARGIN, getMinHeight: height, getMaxHeight: height };
    node.addDOMWidget(name, type, element, options).serialize = false;
    fitTo(node, content);
}

/**
 * Gives a node the height that its widgets need now, and again whenever an element in one of them becomes higher: the page hides
 * the elements of nodes outside its view, which then have no height.
 */
function fitTo(node, element) {
    new ResizeObserver(() => {
        const [width, height] = node.size;
        node.setSize([width, Math.max(height, node.computeSize()[1])]);
        node.setDirtyCanvas(true, true);
    }).observe(element);
}

/** An element with properties and children. */
export function make(tag, properties = {}, children = []) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
}
