import { el, link, state, time, facts, copyButton, table, changes, enable, replace } from "./dom.js";
import { ec2, list, where, session } from "./api.js";
import { ask } from "./dialogs.js";
import { tagsList, pages, later } from "./shared.js";
import { launch } from "./instances.js";

const scopes = {
  self: ["Owned by me", () => ({ Owners: ["self"] })],
  private: ["Private images", () => ({ Owners: ["self"], Filters: [{ Name: "is-public", Values: ["false"] }] })],
  public: ["Public images", () => ({ ExecutableUsers: ["all"] })],
  shared: ["Shared with me", () => ({ ExecutableUsers: ["self"] })],
};

const snapshotsOf = (i) => list(i.blockDeviceMapping).map((b) => b.ebs?.snapshotId).filter(Boolean);

export async function images(main) {
  let chosen = [];
  const scope = el("select", { "aria-label": "Which images", onchange: () => p.again() }, Object.entries(scopes).map(([value, [text]]) => el("option", { value }, text)));
  const name = el("input", { type: "search", placeholder: "Name contains", "aria-label": "Name contains", oninput: later(() => p.again()) });
  const button = (text, on, cls) => el("button", { disabled: true, class: cls, onclick: on }, text);
  const b = {
    launch: button("Launch", () => launch(chosen[0])), copy: button("Copy", () => copy(chosen[0])), share: button("Share", () => share(chosen[0])),
    deregister: button("Deregister", () => deregister(chosen[0]), "danger"),
  };
  const t = table({
    label: "Images", id: (i) => i.imageId, tells: (i) => [i.name, i.imageState],
    columns: [
      ["Name", (i) => i.name], ["Image", (i) => link(i.imageId, `#/images/${i.imageId}`)], ["State", (i) => state(i.imageState)], ["Owner", (i) => i.imageOwnerAlias || i.imageOwnerId],
      ["Visibility", (i) => (i.isPublic === "true" ? "public" : "private")], ["Architecture", (i) => i.architecture], ["Created", (i) => time(i.creationDate)],
    ],
    select: (rows) => {
      chosen = rows;
      const one = rows.length === 1, mine = one && rows[0].imageOwnerId === where.account, ready = one && rows[0].imageState === "available";
      enable(b.launch, ready);
      enable(b.copy, ready);
      enable(b.share, mine);
      enable(b.deregister, mine);
    },
  });
  const p = pages(t, async (NextToken) => {
    const params = scopes[scope.value][1]();
    if (name.value) params.Filters = [...(params.Filters ?? []), { Name: "name", Values: [`*${name.value.replace(/[*?\\]/g, "\\$&")}*`] }];
    const r = await ec2("DescribeImages", { ...params, MaxResults: 100, NextToken });
    let rows = list(r.imagesSet);
    if (scope.value === "shared") rows = rows.filter((i) => i.imageOwnerId !== where.account);
    return [rows, r.nextToken];
  });
  main.append(el("h1", {}, "Images"), el("div", { class: "bar" }, scope, name, Object.values(b)), t, el("div", { class: "bar" }, p.bar));
  return p.show;
}

export async function image(main, id) {
  const body = el("div"), heard = changes();
  main.append(el("h1", {}, id), body);
  return async () => {
    const i = list((await ec2("DescribeImages", { ImageIds: [id], IncludeDeprecated: true })).imagesSet)[0];
    const mine = i.imageOwnerId === where.account;
    const shared = mine ? list((await ec2("DescribeImageAttribute", { ImageId: id, Attribute: "launchPermission" })).launchPermission) : [];
    const ready = i.imageState === "available";
    heard([[id, i.name, i.imageState]]);
    replace(body,
      el("div", { class: "bar" },
        el("button", { class: "main", disabled: !ready, onclick: () => launch(i) }, "Launch"), el("button", { disabled: !ready, onclick: () => copy(i) }, "Copy"),
        el("button", { disabled: !mine, onclick: () => share(i) }, "Share"), el("button", { class: "danger", disabled: !mine, onclick: () => deregister(i) }, "Deregister")),
      facts([
        ["Name", [i.name, " ", copyButton(id, "Copy the id")]], ["Description", i.description], ["State", state(i.imageState)], ["Why", i.stateReason?.message], ["Owner", i.imageOwnerAlias ? `${i.imageOwnerId} (${i.imageOwnerAlias})` : i.imageOwnerId],
        ["Visibility", i.isPublic === "true" ? "public" : "private"], ["Shared with", shared.map((s) => s.userId ?? (s.group && "everyone")).filter(Boolean).join(", ")], ["Created", time(i.creationDate)],
        ["Deprecated from", time(i.deprecationTime)], ["Copied from", i.sourceImageId && `${i.sourceImageId} in ${i.sourceImageRegion}`], ["Root device", i.rootDeviceName],
        ["Snapshots", snapshotsOf(i).map((s) => [mine ? link(s, `#/snapshots/${s}`) : s, " "])], ["Tags", tagsList(i)],
      ]));
  };
}

async function copy(i) {
  const regions = list((await ec2("DescribeRegions")).regionInfo).map((r) => r.regionName).sort();
  const from = where.region;
  return ask({
    title: "Copy an image", intro: `${i.name} in ${from}.`, button: "Copy",
    fields: [
      { name: "Region", label: "To region", type: "select", value: regions.find((r) => r !== from) ?? from, options: regions.map((value) => ({ value })) },
      { name: "Name", label: "Name", value: i.name, required: true }, { name: "Description", label: "Description", value: i.description },
      { name: "Encrypted", label: "Encrypt the snapshots", type: "check" },
    ],
    blame: { InvalidAMIName: "Name" },
    calls: (v) => [{ action: "CopyImage", region: v.Region, params: { Name: v.Name, Description: v.Description, SourceImageId: i.imageId, SourceRegion: from, Encrypted: v.Encrypted || undefined } }],
    said: ([r]) => `${r.imageId} is being made.`,
  });
}

function share(i) {
  const others = session.accounts.filter((a) => a.id !== where.account);
  return ask({
    title: "Share an image", intro: i.name, button: "Share",
    fields: [
      { name: "Who", label: "With", type: "select", value: "account", options: [{ value: "account", text: "an account" }, { value: "all", text: "everyone" }, { value: "not-all", text: "no longer everyone" }, { value: "not-account", text: "an account no longer" }] },
      { name: "UserId", label: "Account", value: others[0]?.id ?? "", help: others.map((a) => `${a.id} is ${a.profile}`).join(", "), when: (v) => !v.Who.includes("all") },
      { name: "Warning", label: "I know that everyone in the world can launch this image and read what is in it.", type: "check", when: (v) => v.Who === "all" },
    ],
    blame: { InvalidAMIAttributeItemValue: "UserId", InvalidUserID: "UserId" },
    calls: (v) => [{
      action: "ModifyImageAttribute",
      params: { ImageId: i.imageId, LaunchPermission: { [v.Who.startsWith("not-") ? "Remove" : "Add"]: [v.Who.includes("all") ? { Group: "all" } : { UserId: v.UserId }] } },
      confirmed: v.Who !== "all" || v.Warning,
    }],
    make: async (c) => {
      if (!c.confirmed) throw new Error("Warning: confirm first that everyone may have it.");
      return ec2(c.action, c.params);
    },
    said: "The launch permissions are changed.",
  });
}

// usesOf shows what uses an image, as soon as that is found out.
function usesOf(i) {
  const box = el("div", { role: "status" }, el("p", {}, "Looking for what uses it…"));
  fetch(`uses/${where.account}/${where.region}/${i.imageId}`).then(async (answer) => {
    if (!answer.ok) throw new Error(await answer.text());
    const found = await answer.json();
    box.replaceChildren(...(found.length ? [el("p", { class: "warning" }, "It is in use:"), el("ul", {}, found.map((u) => el("li", {}, u)))] : [el("p", {}, "Nothing is known to use it.")]));
  }).catch((err) => box.replaceChildren(el("p", { class: "warning" }, err.message)));
  return box;
}

async function deregister(i) {
  const snapshots = snapshotsOf(i);
  const done = await ask({
    title: "Deregister an image", intro: `${i.name} (${i.imageId})`, button: "Deregister", danger: true,
    warning: "It cannot be launched any more. Instances that run go on. Its snapshots stay unless they are deleted too.", more: usesOf(i),
    fields: [{ name: "Snapshots", label: `Delete its snapshots too: ${snapshots.join(", ") || "there are none"}`, type: "check" }],
    calls: (v) => [{ action: "DeregisterImage", params: { ImageId: i.imageId } }, ...(v.Snapshots ? snapshots.map((SnapshotId) => ({ action: "DeleteSnapshot", params: { SnapshotId } })) : [])],
    said: `${i.imageId} is deregistered.`,
  });
  if (done) location.hash = "#/images";
}
