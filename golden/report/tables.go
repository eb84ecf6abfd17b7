package report

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"bake/internal/prose"
)

// table is a table whose rows can be filtered.
type table struct {
	id, class, caption string
	columns            []string
	choices            []choice // for values in the rows' data attributes
	rows               int
}

// choice is a criterion for filtering rows.
type choice struct {
	name, title string
	values      []string
}

func texts[T ~string](all []T) (out []string) {
	for _, s := range all {
		out = append(out, string(s))
	}
	return out
}

// few is the maximum number of rows that are shown without a filter.
const few = 8

// table writes a table. row writes one of its rows. Elements have explicit roles, because a
// narrow page shows them as blocks, and they then lose their implicit roles.
func (p page) table(t table, row func(int)) {
	if t.rows > few {
		p.filter(t)
	}
	p.put("<table id=\"%\" class=\"%\" role=\"table\"><caption>%", t.id, t.class, t.caption)
	if t.rows > maxRows {
		p.put(" (% of %; the rest is in its document)", maxRows, t.rows)
	}
	p.put("</caption>\n<thead role=\"rowgroup\"><tr role=\"row\">")
	for _, c := range t.columns {
		p.put("<th scope=\"col\" role=\"columnheader\">%</th>", c)
	}
	p.put("</tr></thead>\n<tbody role=\"rowgroup\">\n")
	for i := range min(t.rows, maxRows) {
		row(i)
	}
	p.put("</tbody></table>\n")
}

// filter writes the form for filtering, which the script shows, and an element for the
// number of visible rows.
func (p page) filter(t table) {
	p.put("<form hidden role=\"search\" aria-label=\"Filter: %\" data-rows=\"%\"><label>Filter<input name=\"text\" type=\"search\" autocomplete=\"off\" aria-controls=\"%\"></label>\n", t.caption, t.id, t.id)
	for _, c := range t.choices {
		p.put("<label>%<select name=\"%\" aria-controls=\"%\"><option value=\"\">all</option>", c.title, c.name, t.id)
		for _, v := range c.values {
			p.put("<option>%</option>", v)
		}
		p.put("</select></label>\n")
	}
	p.put("</form>\n<output hidden id=\"%-count\" aria-live=\"polite\"></output>\n", t.id)
}

// row writes a row of texts. data is the value for the choice of this name.
func (p page) row(name, data string, cells ...any) {
	p.put("<tr role=\"row\"")
	if name != "" {
		p.put(" data-%=\"%\"", name, data)
	}
	p.put(">")
	for _, c := range cells {
		p.put("<td role=\"cell\">%</td>", c)
	}
	p.put("</tr>\n")
}

// places writes the locations that an image was distributed to, and the channels that
// name it.
func (p page) places(b *Build, n int) {
	if len(b.Places) > 0 {
		p.put("<h3>Where the image is</h3>\n")
		accounts := map[string]bool{}
		for _, at := range b.Places {
			accounts[at.Account] = true
		}
		caption := fmt.Sprintf("%s in %s", prose.Count(len(b.Places), "place"), prose.Count(len(accounts), "account"))
		p.table(table{id: "places-" + strconv.Itoa(n), class: "plain", caption: caption, columns: []string{"Account", "Region", "Image", "Whose"}, rows: len(b.Places)}, func(i int) {
			at := b.Places[i]
			whose := "its own"
			if at.Shared {
				whose = "shared with it"
			}
			p.row("", "", at.Account, at.Region, code(at.ID), whose)
		})
	}
	if len(b.Channels) == 0 {
		return
	}
	p.put("<h3>Channels</h3>\n")
	p.table(table{id: "channels-" + strconv.Itoa(n), class: "plain", caption: "Launch templates name a channel as resolve:ssm:PARAMETER", columns: []string{"Channel", "Parameter", "State"}, rows: len(b.Channels)}, func(i int) {
		c := b.Channels[i]
		says := raw(`<span class="state good">names the image</span>`)
		if !c.Names {
			says = raw(`<span class="state warn">does not name the image</span>`)
		}
		if len(c.Reasons) > 0 {
			says += ": " + raw(escape(strings.Join(c.Reasons, "; ")))
		}
		p.row("", "", c.Name, code(c.Parameter), says)
	})
}

func code(s string) raw { return raw("<code>" + escape(s) + "</code>") }

// contents lists what is installed.
func (p page) contents(c *Contents, n int) {
	if c == nil {
		return
	}
	p.put("<h3>What is installed</h3>\n")
	if c.Missing != "" {
		p.put("<p>% <span class=\"warn\">cannot be shown: %</span></p>\n", c.Document, c.Missing)
		return
	}
	var kinds, counts []string
	for kind := range c.Counts {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	for _, kind := range kinds {
		counts = append(counts, strconv.Itoa(c.Counts[kind])+" "+kind)
	}
	if c.Count == 0 {
		p.put("<p>The SBOM lists no packages.</p>\n")
		return
	}
	p.put("<details><summary>%: %</summary>\n", prose.Count(c.Count, "package"), strings.Join(counts, ", "))
	p.table(table{
		id: "packages-" + strconv.Itoa(n), class: "plain", caption: "Installed packages", columns: []string{"Package", "Version", "Architecture", "Kind"},
		choices: []choice{{"kind", "Kind", kinds}}, rows: c.Count,
	}, func(i int) {
		one := c.Packages[i]
		p.row("kind", one.Kind, one.Name, one.Version, one.Arch, one.Kind)
	})
	p.put("</details>\n")
}

// changes lists the differences from the previous image.
func (p page) changes(c *Changes, n int) {
	switch {
	case c == nil:
		return
	case c.Missing != "":
		p.put("<h3>What differs from the image before</h3>\n<p class=\"warn\">The document cannot be shown: %</p>\n", c.Missing)
		return
	}
	p.put("<h3>What differs from the image before, <code>%</code></h3>\n", c.Before)
	if len(c.Packages)+len(c.Files)+len(c.Checks) == 0 && len(c.Unknown) < 3 {
		p.put("<p>Nothing does that is known of both.</p>\n")
	}
	if len(c.Unknown) > 0 {
		p.put("<p>Not known of both, and not compared: %</p>\n", strings.Join(c.Unknown, ", "))
	}
	if c.Omitted > 0 {
		p.put("<p>% more are only in the document.</p>\n", c.Omitted)
	}
	p.changedPackages(c, n)
	p.folded("Files", len(c.Files), func() {
		p.table(table{id: "files-" + strconv.Itoa(n), class: "plain", caption: "Files that differ", columns: []string{"File", "Change"}, rows: len(c.Files)}, func(i int) {
			p.row("", "", code(c.Files[i].Path), c.Files[i].What)
		})
	})
	p.folded("Checks", len(c.Checks), func() {
		p.table(table{id: "checks-" + strconv.Itoa(n), class: "plain", caption: "Checks with another result", columns: []string{"Check", "Before", "Now"}, rows: len(c.Checks)}, func(i int) {
			p.row("", "", c.Checks[i].Check, or(c.Checks[i].Before, "not checked"), or(c.Checks[i].After, "not checked"))
		})
	})
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// changedPackages lists the packages that were added, removed or changed.
func (p page) changedPackages(c *Changes, n int) {
	change := make([]string, len(c.Packages))
	counts := map[string]int{}
	for i, one := range c.Packages {
		switch {
		case one.Before == "":
			change[i] = "added"
		case one.After == "":
			change[i] = "removed"
		default:
			change[i] = "changed"
		}
		counts[change[i]]++
	}
	all := []string{"added", "removed", "changed"}
	var said []string
	for _, what := range all {
		if counts[what] > 0 {
			said = append(said, strconv.Itoa(counts[what])+" "+what)
		}
	}
	p.folded("Packages: "+strings.Join(said, ", "), len(c.Packages), func() {
		p.table(table{
			id: "changes-" + strconv.Itoa(n), class: "plain", caption: "Packages that differ", columns: []string{"Change", "Package", "Before", "Now"},
			choices: []choice{{"change", "Change", all}}, rows: len(c.Packages),
		}, func(i int) {
			one := c.Packages[i]
			name := one.Name
			if one.Arch != "" {
				name += ":" + one.Arch
			}
			p.row("change", change[i], change[i], name+" ("+string(one.Kind)+")", or(one.Before, "–"), or(one.After, "–"))
		})
	})
}

// folded writes a collapsible section, which is open if it is short. It writes nothing if
// there is no content.
func (p page) folded(title string, n int, write func()) {
	if n == 0 {
		return
	}
	open := raw("")
	if n <= few {
		open = " open"
	}
	p.put("<details%><summary>% (%)</summary>\n", open, title, n)
	write()
	p.put("</details>\n")
}
