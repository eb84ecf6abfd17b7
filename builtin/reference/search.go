package reference

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"bake/config/schema"
	"bake/docs"
)

// Match is a place of the documentation where a text was found.
type Match struct {
	Command string `json:"command"` // that shows the place
	Text    string `json:"text"`    // the sentence that it starts with
	named   bool
}

// search collects matches: of what has the same text in several components, that of
// amazon-ebs, which most templates use, or else the first.
type search struct {
	words []string
	seen  map[string]bool
	found []Match
}

// Search looks for places that have all words of a text: options, functions, settings, and
// sections of the guide. Those that have it in their name come first.
func Search(refs []Component, text string) ([]Match, error) {
	s := &search{words: strings.Fields(strings.ToLower(text)), seen: map[string]bool{}}
	usual := func(r Component) bool { return r.Name == "amazon-ebs" }
	refs = append([]Component(nil), refs...)
	sort.SliceStable(refs, func(i, j int) bool { return usual(refs[i]) && !usual(refs[j]) })
	for _, r := range refs {
		command := "bake docs " + r.Name
		s.look(command, r.Name, r.Text, r.Text)
		s.options(command, "", r.Options)
	}
	functions, err := Functions()
	if err != nil {
		return nil, err
	}
	for _, f := range functions {
		s.look("bake docs functions "+f.Name, f.Name, f.Text, f.Text)
	}
	settings, err := Settings()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(settings) {
		if name, about, ok := setting(line); ok {
			s.look("bake docs settings", name, line, name+": "+about)
		}
	}
	s.look("bake docs settings", "settings config.hcl", settings, "Settings that apply to all templates of a user.")
	chapters, err := Chapters()
	for _, c := range chapters {
		for part := range strings.SplitSeq("\n"+c.Text, "\n#") {
			heading, body, _ := strings.Cut(strings.TrimLeft(part, "# "), "\n")
			s.look("bake docs guide "+c.Name, heading, body, heading)
		}
	}
	sort.SliceStable(s.found, func(i, j int) bool { return s.found[i].named && !s.found[j].named })
	return s.found, err
}

func (s *search) options(command, path string, options []schema.Doc) {
	for _, d := range options {
		full := strings.TrimPrefix(path+"."+d.Name, ".")
		s.look(command+" "+full, full, d.Text, d.Text)
		s.options(command, full, d.Block)
	}
}

// look adds a place, if it is one.
func (s *search) look(command, name, text, shown string) {
	inName, inAll := strings.ToLower(name), strings.ToLower(name+" "+text)
	named, all := true, true
	for _, w := range s.words {
		named, all = named && strings.Contains(inName, w), all && strings.Contains(inAll, w)
	}
	key := name + "\x00" + text
	if !all || len(s.words) == 0 || s.seen[key] {
		return
	}
	s.seen[key] = true
	s.found = append(s.found, Match{command, sentence(shown), named})
}

// sentence is the first one of a text.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if first, _, more := strings.Cut(text, ". "); more {
		return first + "."
	}
	return text
}

// ListMatches writes matches.
func ListMatches(w io.Writer, found []Match) {
	width := 0
	for _, m := range found {
		width = max(width, min(len(m.Command), 60))
	}
	for _, m := range found {
		fmt.Fprintf(w, "%-*s  %s\n", width, m.Command, column(m.Text, width+2))
	}
}

// Settings is docs/configuration.md: the file of a user's settings, in Markdown.
func Settings() (string, error) {
	pages, err := docs.Pages("configuration.md")
	if err != nil {
		return "", err
	}
	return pages[0].Text, nil
}

// setting returns the name of the setting that a line of its page is about, and what it is.
func setting(line string) (name, about string, ok bool) {
	cells := strings.Split(line, "|")
	if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
		return "", "", false
	}
	return strings.Trim(cells[1], " `"), strings.TrimSpace(docs.Plain(strings.TrimSpace(cells[3]), Width)), true
}

// Chapter is one of the guide.
type Chapter struct {
	Number int    `json:"number"`
	Name   string `json:"name"` // such as "provisioners"
	Title  string `json:"title"`
	Text   string `json:"text,omitempty"` // Markdown
}

// Chapters returns the chapters of the guide in their order.
func Chapters() ([]Chapter, error) {
	pages, err := docs.Pages("guide")
	var all []Chapter
	for _, p := range pages {
		var c Chapter
		if n, _ := fmt.Sscanf(p.Name, "guide/%d-%s", &c.Number, &c.Name); n != 2 {
			continue // README.md
		}
		c.Name = strings.TrimSuffix(c.Name, ".md")
		title, _, _ := strings.Cut(p.Text, "\n")
		c.Title, c.Text = strings.TrimPrefix(title, "# "), p.Text
		all = append(all, c)
	}
	return all, err
}
