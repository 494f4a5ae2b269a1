// The texts of this extension in the page's language: those of `locales/*/main.json`, which the server collects for the page.

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

const answer = await api.fetchApi("/i18n");
const languages = answer.ok ? await answer.json() : {};

/** A text by its name, with the values in the places of their `{names}`; in English where the page's language has none. */
export function text(name, values = {}) {
    const language = app.extensionManager.setting.get("Comfy.Locale");
    const found = languages[language]?.moa?.[name] ?? languages.en?.moa?.[name] ?? name;
    return found.replace(/\{(\w+)\}/g, (_, place) => values[place]);
}
