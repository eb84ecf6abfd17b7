import { el, copyButton, finder, refocus, say } from "./dom.js";
import { cli, ec2, where } from "./api.js";
import { later } from "./shared.js";

let count = 0;

// A field is { name, label, type, value, options, help, required, when, suggest }. Its type is
// that of an input, or select, area, check. With "suggest", which returns options for what is
// typed, options are only suggested.
function control(f) {
  const id = `field-${++count}`;
  const described = `${id}-help ${id}-error`;
  let input;
  switch (f.type) {
    case "select":
      input = el("select", { id, name: f.name, "aria-describedby": described }, (f.options ?? []).map((o) => el("option", { value: o.value, selected: o.value === f.value }, o.text ?? o.value)));
      break;
    case "area":
      input = el("textarea", { id, name: f.name, rows: "4", "aria-describedby": described, spellcheck: "false" }, f.value ?? "");
      break;
    case "check":
      input = el("input", { id, name: f.name, type: "checkbox", checked: !!f.value, "aria-describedby": described });
      break;
    default:
      input = el("input", { id, name: f.name, type: f.type ?? "text", value: f.value === undefined ? "" : String(f.value), required: !!f.required, min: f.min, max: f.max, autocomplete: "off", spellcheck: "false", "aria-describedby": described });
  }
  const choices = f.suggest && el("datalist", { id: `${id}-choices` });
  if (choices) {
    const show = (options) => choices.replaceChildren(...options.map((o) => el("option", { value: o.value }, o.text)));
    show(f.options);
    input.setAttribute("list", choices.id);
    input.addEventListener("input", later(() => f.suggest(input.value).then(show, (err) => say(err.message, true))));
  }
  const error = el("div", { id: `${id}-error`, class: "error" });
  input.addEventListener("input", () => { // what was said was about another value
    error.textContent = "";
    input.removeAttribute("aria-invalid");
  });
  const label = el("label", { for: id }, f.type === "check" ? [input, " ", f.label] : f.label);
  const row = el("div", { class: "field" }, label, f.type === "check" ? null : input, choices, el("small", { id: `${id}-help` }, f.help ?? ""), error);
  return { f, input, error, row };
}

const read = ({ f, input }) => (f.type === "check" ? input.checked : f.type === "number" ? (input.value === "" ? "" : Number(input.value)) : input.value);

// ask opens a dialog whose button makes calls of the EC2 API. "calls" says which for the
// values of the fields: [{ action, params, cli, region }]; cli is what the AWS CLI takes where
// that differs. "blame" maps the beginnings of error codes to the fields that they are about.
// "more" is what there is to know besides, an element. It returns what the calls answered, or
// undefined if the dialog was closed. The focus is where it was then.
export function ask({ title, intro, warning, more, fields = [], button = "OK", danger, calls, blame = {}, said, make }) {
  return new Promise((resolve) => {
    const back = finder(document.activeElement);
    const controls = fields.map(control);
    const values = () => Object.fromEntries(controls.map((c) => [c.f.name, read(c)]));
    const command = el("pre", { tabindex: "0", role: "region", "aria-label": "The AWS CLI command that does the same" });
    const error = el("div", { class: "error", role: "alert" });
    const submit = el("button", { class: danger ? "danger" : "main", type: "submit" }, button);
    let answer;
    const done = new Map(); // what was answered before one of several calls failed
    const commands = () => calls(values()).map((c) => cli(c.service ?? "ec2", c.action, { ...c.params, ...c.cli }, c.region ?? where.region)).join("\n");
    const refresh = () => {
      const v = values();
      controls.forEach((c) => { c.row.hidden = c.f.when ? !c.f.when(v) : false; });
      command.textContent = commands();
    };
    const heading = `dialog-${++count}`;
    const dialog = el("dialog", { "aria-labelledby": heading, onclose: () => { dialog.remove(); refocus(back); resolve(answer); } },
      el("form", {
        method: "dialog",
        onsubmit: async (event) => {
          event.preventDefault();
          error.textContent = "";
          controls.forEach((c) => { c.error.textContent = ""; c.input.removeAttribute("aria-invalid"); });
          submit.disabled = true;
          try {
            const answers = [];
            for (const c of calls(values())) {
              const key = JSON.stringify(c);
              if (!done.has(key)) done.set(key, await (make ?? ec2Call)(c));
              answers.push(done.get(key));
            }
            answer = answers;
            dialog.close();
            if (said) say(typeof said === "function" ? said(answers) : said);
          } catch (err) {
            const name = Object.entries(blame).find(([prefix]) => (err.code ?? "").startsWith(prefix))?.[1]
              ?? controls.find((c) => new RegExp(`\\b${c.f.name}\\b`, "i").test(err.message))?.f.name;
            const guilty = controls.find((c) => c.f.name === name);
            const text = err.code ? `${err.code}: ${err.message}` : err.message;
            if (guilty) {
              guilty.error.textContent = text;
              guilty.input.setAttribute("aria-invalid", "true");
              guilty.input.focus();
            } else error.textContent = text;
          } finally {
            submit.disabled = false;
            if (document.activeElement === document.body) submit.focus();
          }
        },
      },
      el("h1", { id: heading }, title), intro && el("p", {}, intro), warning && el("p", { class: "warning" }, warning), more, controls.map((c) => c.row), error,
      el("details", { open: true }, el("summary", {}, "AWS CLI"), command, copyButton(commands, "Copy the command")),
      el("div", { class: "bar" }, submit, el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
    dialog.addEventListener("input", refresh);
    document.body.append(dialog);
    refresh();
    dialog.showModal();
  });
}

const ec2Call = (c) => ec2(c.action, c.params, c.region ?? where.region);

// tagsOf reads tags, one KEY=VALUE a line.
export function tagsOf(text) {
  return text.split("\n").map((l) => l.trim()).filter(Boolean).map((l) => {
    const [key, ...rest] = l.split("=");
    return { Key: key.trim(), Value: rest.join("=").trim() };
  });
}

export const tagsFor = (kind, tags) => (tags.length ? [{ ResourceType: kind, Tags: tags }] : undefined);
