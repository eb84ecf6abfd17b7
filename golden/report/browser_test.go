package report_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/golden/report"
	"bake/internal/browser"
)

// widths are those of a phone, a laptop and a large screen.
var widths = []int{360, 1024, 2560}

// pages writes the page of a real run, and one with hostile text everywhere.
func pages(t *testing.T) (recorded, evil string) {
	t.Helper()
	text, err := os.ReadFile("testdata/run.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := valid(t, string(text)); err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(hostile(), "\n")
	worst, _ := run(t, all)
	again := *worst.Builds[0]
	worst.Builds = append(worst.Builds, &again) // the IDs on the page are still unique
	dir := t.TempDir()
	for name, one := range map[string]*report.Report{"recorded.html": &r, "hostile.html": worst} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := one.HTML(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "recorded.html"), filepath.Join(dir, "hostile.html")
}

// contrast returns texts on the page that are hard to read: those with a contrast below 4.5 to 1,
// the minimum in WCAG.
const contrast = `(() => {
  const parts = (c) => c.match(/[\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; const p = parts(c); if (p.length < 4 || p[3] > 0) return c; } return 'rgb(255, 255, 255)'; };
  const bad = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length || /^(script|style|option)$/i.test(e.tagName)) continue;
    const a = light(getComputedStyle(e).color), b = light(back(e));
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) bad.add(e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40));
  }
  return [...bad];
})()`

func TestBrowser(t *testing.T) {
	b := browser.Start(t)
	recorded, evil := pages(t)
	t.Run("widths", func(t *testing.T) { looks(t, b, recorded, evil) })
	t.Run("filters", func(t *testing.T) { filters(t, b, recorded) })
	t.Run("access", func(t *testing.T) { access(t, b, recorded, evil) })
}

// The page is complete at any width, in light and dark mode, loads nothing, and causes no
// complaints of the browser.
func looks(t *testing.T, b *browser.Browser, paths ...string) {
	for _, path := range paths {
		p := b.Open(t, "file://"+path)
		for _, width := range widths {
			for _, dark := range []bool{false, true} {
				p.Look(width, 900, dark)
				at := fmt.Sprintf("%s at %d px, dark: %v", filepath.Base(path), width, dark)
				if over := browser.Eval[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
					t.Errorf("%s: it is %d px too wide", at, over)
				}
				if bad := browser.Eval[[]string](p, contrast); len(bad) > 0 {
					t.Errorf("%s: hard to read: %q", at, bad)
				}
				if back := browser.Eval[string](p, "getComputedStyle(document.body).backgroundColor"); (back == "rgb(255, 255, 255)") == dark {
					t.Errorf("%s: its background is %s", at, back)
				}
				if dir := os.Getenv("BAKE_TEST_SCREENSHOTS"); dir != "" {
					p.Screenshot(filepath.Join(dir, fmt.Sprintf("%s-%d-%v.png", filepath.Base(path), width, dark)))
				}
			}
		}
		if dup := browser.Eval[[]string](p, "[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i)"); len(dup) > 0 {
			t.Errorf("%s: elements share the IDs %v", path, dup)
		}
		if c := p.Complaints(); len(c) > 0 {
			t.Errorf("%s: the browser says: %s", path, strings.Join(c, "\n"))
		}
		if r := p.Requests(); len(r) != 1 {
			t.Errorf("%s: it loads %v", path, r)
		}
	}
}

// The content of the page is visible, and its filters work.
func filters(t *testing.T, b *browser.Browser, recorded string) {
	p := b.Open(t, "file://"+recorded)
	p.Look(1024, 900, false)
	shown := func(table string) int {
		return browser.Eval[int](p, "[...document.querySelectorAll('#"+table+" tbody tr')].filter(r => getComputedStyle(r).display !== 'none').length")
	}
	if n := browser.Eval[int](p, "[...document.querySelectorAll('ol.timeline li .track i')].filter(e => e.getBoundingClientRect().width >= 2).length"); n != browser.Eval[int](p, "document.querySelectorAll('ol.timeline li').length") || n < 20 {
		t.Errorf("the timeline shows %d steps", n)
	}
	all, packages := shown("findings-0"), browser.Eval[int](p, "document.querySelectorAll('#packages-0 tbody tr').length")
	if all < 20 || packages < 200 || shown("places-0") != 3 || shown("channels-0") != 2 {
		t.Errorf("%d findings, %d packages, %d places, %d channels", all, packages, shown("places-0"), shown("channels-0"))
	}
	set := func(form, field, value, kind string) {
		browser.Eval[bool](p, fmt.Sprintf("(() => { const f = document.querySelector('form[data-rows=%s]').elements[%q]; f.value = %q; f.dispatchEvent(new Event(%q, {bubbles: true})); return true; })()", form, field, value, kind))
	}
	set("findings-0", "result", "fixed", "input")
	fixed := shown("findings-0")
	if want := browser.Eval[int](p, "document.querySelectorAll('#findings-0 tr[data-result=fixed]').length"); fixed != want || fixed == 0 || fixed == all {
		t.Errorf("%d of %d findings are fixed, %d are shown", want, all, fixed)
	}
	set("findings-0", "severity", "critical", "input")
	if n := shown("findings-0"); n == 0 || n >= fixed {
		t.Errorf("%d of %d are critical", n, fixed)
	}
	if said := browser.Eval[string](p, "document.getElementById('findings-0-count').textContent"); said != fmt.Sprintf("%d of %d shown", shown("findings-0"), all) {
		t.Errorf("the page says %q, want %d of %d shown", said, shown("findings-0"), all)
	}
	browser.Eval[bool](p, "document.getElementById('packages-0').closest('details').open = true")
	set("packages-0", "text", "NGINX-light", "input")
	if n := shown("packages-0"); n != 1 {
		t.Errorf("%d packages are called nginx-light", n)
	}
	if n := shown("findings-0"); n == all || n == 0 {
		t.Errorf("a filter of packages shows %d findings", n)
	}
	set("packages-0", "text", "nosuchpackage", "input")
	if n := shown("packages-0"); n != 0 {
		t.Errorf("%d packages are called nosuchpackage", n)
	}
	// In print, it says that it is filtered, and has no forms.
	p.OnPaper()
	if n := browser.Eval[int](p, "[...document.querySelectorAll('form, .skip, nav')].filter(e => e.getClientRects().length).length"); n != 0 {
		t.Errorf("%d forms are printed", n)
	}
	if n := browser.Eval[int](p, "[...document.querySelectorAll('output')].filter(e => e.getClientRects().length && e.textContent.includes('0 of ')).length"); n == 0 {
		t.Error("it is not printed that rows are left out")
	}
	pdf := filepath.Join(t.TempDir(), "page.pdf")
	p.Print(pdf)
	if text, err := os.ReadFile(pdf); err != nil || !strings.HasPrefix(string(text), "%PDF") || len(text) < 10_000 {
		t.Errorf("%v: %d bytes", err, len(text))
	}
	if c := p.Complaints(); len(c) > 0 {
		t.Error(strings.Join(c, "\n"))
	}
}

// The page can be used with the keyboard, and a screen reader knows its structure, even where
// tables are shown as blocks.
func access(t *testing.T, b *browser.Browser, recorded, evil string) {
	p := b.Open(t, "file://"+recorded)
	p.Look(360, 900, false)
	focus := func() string {
		return browser.Eval[string](p, "(e => e.className || e.name || e.id || e.tagName)(document.activeElement)")
	}
	p.Press("Tab")
	if at := focus(); at != "skip" || !browser.Eval[bool](p, "document.activeElement.getBoundingClientRect().left >= 0") {
		t.Errorf("the first stop is %s", at)
	}
	p.Press("Enter")
	if at := focus(); at != "main" {
		t.Errorf("the link leads to %s", at)
	}
	p.Press("Tab")
	if at := focus(); at != "text" {
		t.Errorf("the first stop of the content is %s", at)
	}
	p.Type("leftovers-private")
	if said := browser.Eval[string](p, "document.getElementById('findings-0-count').textContent"); !strings.HasPrefix(said, "2 of ") {
		t.Errorf("typing filters: %s", said)
	}
	for range 40 {
		if p.Press("Tab"); browser.Eval[bool](p, "document.activeElement.matches('summary') && document.activeElement.parentElement.contains(document.getElementById('packages-0'))") {
			break
		}
	}
	p.Press("Enter")
	if !browser.Eval[bool](p, "document.getElementById('packages-0').closest('details').open") {
		t.Error("the packages cannot be reached and opened with the keyboard")
	}
	spoken := map[string]int{}
	for _, n := range p.Spoken() {
		spoken[n.Role]++
		switch n.Role {
		case "searchbox", "combobox", "region", "search", "navigation":
			if n.Name == "" {
				t.Errorf("a %s has no name", n.Role)
			}
		}
	}
	for role, least := range map[string]int{"banner": 1, "main": 1, "contentinfo": 1, "region": 1, "heading": 8, "table": 4, "columnheader": 14, "row": 200, "cell": 800, "searchbox": 2, "combobox": 3, "search": 2, "listitem": 20} {
		if spoken[role] < least {
			t.Errorf("a screen reader knows of %d of %s, and not of %d: %v", spoken[role], role, least, spoken)
		}
	}
	p = b.Open(t, "file://"+evil)
	p.Look(360, 900, false)
	for _, n := range p.Spoken() {
		spoken[n.Role]++
	}
	if spoken["navigation"] != 1 {
		t.Errorf("%d navigations", spoken["navigation"])
	}
}
