import { el, link, state, time, facts, table, enable, replace } from "./dom.js";
import { ec2, list, tag } from "./api.js";
import { ask } from "./dialogs.js";
import { tagsList, pages } from "./shared.js";

// A kind of things that can be listed, looked at and deleted.
const kinds = {
  snapshots: {
    title: "Snapshots", describe: "DescribeSnapshots", params: { Owners: ["self"] }, rows: "snapshotSet", id: (s) => s.snapshotId, ids: "SnapshotIds", remove: "DeleteSnapshot", key: "SnapshotId",
    columns: [
      ["Name", (s) => tag(s, "Name")], ["Snapshot", (s) => link(s.snapshotId, `#/snapshots/${s.snapshotId}`)], ["State", (s) => state(s.status)], ["GiB", (s) => s.volumeSize],
      ["Description", (s) => s.description], ["Started", (s) => time(s.startTime)],
    ],
    facts: (s) => [["State", state(s.status)], ["Progress", s.progress], ["Size", `${s.volumeSize} GiB`], ["Of volume", s.volumeId], ["Description", s.description], ["Encrypted", s.encrypted], ["Started", time(s.startTime)], ["Tags", tagsList(s)]],
    warning: "What is in a deleted snapshot is gone. The snapshot of an image that is registered is refused.",
  },
  volumes: {
    title: "Volumes", describe: "DescribeVolumes", params: {}, rows: "volumeSet", id: (v) => v.volumeId, ids: "VolumeIds", remove: "DeleteVolume", key: "VolumeId",
    columns: [
      ["Name", (v) => tag(v, "Name")], ["Volume", (v) => link(v.volumeId, `#/volumes/${v.volumeId}`)], ["State", (v) => state(v.status)], ["GiB", (v) => v.size], ["Type", (v) => v.volumeType],
      ["Attached to", (v) => list(v.attachmentSet).map((a) => [link(a.instanceId, `#/instances/${a.instanceId}`), ` ${a.device} `])], ["Created", (v) => time(v.createTime)],
    ],
    facts: (v) => [
      ["State", state(v.status)], ["Size", `${v.size} GiB`], ["Type", v.volumeType], ["Zone", v.availabilityZone], ["From snapshot", v.snapshotId && link(v.snapshotId, `#/snapshots/${v.snapshotId}`)],
      ["Attached to", list(v.attachmentSet).map((a) => [link(a.instanceId, `#/instances/${a.instanceId}`), ` ${a.device} `])], ["Encrypted", v.encrypted], ["Created", time(v.createTime)], ["Tags", tagsList(v)],
    ],
    warning: "What is on a deleted volume is gone.",
  },
};

const remove = (kind, rows) => ask({
  title: `Delete ${kind.title.toLowerCase()}`, intro: rows.map(kind.id).join(", "), warning: kind.warning, button: "Delete", danger: true,
  calls: () => rows.map((r) => ({ action: kind.remove, params: { [kind.key]: kind.id(r) } })), said: "Deleted.",
});

const lister = (name) => async (main) => {
  const kind = kinds[name];
  let chosen = [];
  const button = el("button", { class: "danger", disabled: true, onclick: () => remove(kind, chosen) }, "Delete");
  const t = table({ label: kind.title, tells: (r) => [kind.id(r), r.status], columns: kind.columns, id: kind.id, select: (rows) => { chosen = rows; enable(button, rows.length > 0); } });
  const p = pages(t, async (NextToken) => {
    const r = await ec2(kind.describe, { ...kind.params, MaxResults: 100, NextToken });
    return [list(r[kind.rows]), r.nextToken];
  });
  main.append(el("h1", {}, kind.title), el("div", { class: "bar" }, button), t, el("div", { class: "bar" }, p.bar));
  return p.show;
};

const viewer = (name) => async (main, id) => {
  const kind = kinds[name];
  const body = el("div");
  main.append(el("h1", {}, id), body);
  return async () => {
    const row = list((await ec2(kind.describe, { [kind.ids]: [id] }))[kind.rows])[0];
    replace(body, 
      el("div", { class: "bar" }, el("button", { class: "danger", onclick: async () => { if (await remove(kind, [row])) location.hash = `#/${name}`; } }, "Delete")),
      facts(kind.facts(row)));
  };
};

export const snapshots = lister("snapshots"), snapshot = viewer("snapshots"), volumes = lister("volumes"), volume = viewer("volumes");
