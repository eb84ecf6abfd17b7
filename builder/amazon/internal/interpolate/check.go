package interpolate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/template/parse"
	"unicode/utf8"

	"bake/builder/amazon/internal/ownership"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/imagetag"
)

// variables are the variables of a text that is rendered later, in addition to the tags of
// the source image.
var variables = []string{"BuildRegion", "SourceAMI", "SourceAMIName", "SourceAMICreationDate", "SourceAMIOwner", "SourceAMIOwnerName"}

// sourceTags is the variable with the tags of the source image, by key.
const sourceTags = "SourceAMITags"

// Check reports a variable that the text at ptr cannot use, and a function that
// HCL has replaced: rendering would leave "<no value>" or fail, and only once the
// source image is known. Its syntax was checked when it was decoded.
func Check(c *schema.Checker, ptr *string) { checkText(c, ptr, *ptr) }

func checkText(c *schema.Checker, ptr any, text string) {
	if err := usable(text); err != nil {
		c.Errorf(ptr, "Invalid {{ }} template", "Argument %q: %s.", c.Name(ptr), err)
	}
}

// usable returns an error if text would not render as intended, or nil.
func usable(text string) error {
	if !strings.Contains(text, "{{") {
		return nil
	}
	tree := parse.New("")
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		return nil // reported when the option was decoded
	}
	for name, t := range trees {
		if err := walk(t.Root, name == ""); err != nil {
			return err
		}
	}
	return nil
}

// walk returns an error if a node contains something that cannot be rendered. atRoot
// reports whether the dot is that of the whole text.
func walk(node parse.Node, atRoot bool) error {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		return walkAll(n.Nodes, atRoot)
	case *parse.ActionNode:
		return walk(n.Pipe, atRoot)
	case *parse.TemplateNode:
		return walk(n.Pipe, atRoot)
	case *parse.PipeNode:
		if n == nil {
			return nil
		}
		for _, cmd := range n.Cmds {
			if err := walk(cmd, atRoot); err != nil {
				return err
			}
		}
	case *parse.CommandNode:
		if f, ok := n.Args[0].(*parse.IdentifierNode); ok && slices.Contains(replaced, f.Ident) {
			_, err := gotemplate.Context{}.Render("{{"+n.String()+"}}", nil)
			return err
		}
		return walkAll(n.Args, atRoot)
	case *parse.ChainNode:
		return walk(n.Node, atRoot)
	case *parse.IfNode:
		return cmp.Or(walk(n.Pipe, atRoot), walk(n.List, atRoot), walk(n.ElseList, atRoot))
	case *parse.WithNode:
		return cmp.Or(walk(n.Pipe, atRoot), walk(n.List, false), walk(n.ElseList, atRoot))
	case *parse.RangeNode:
		return cmp.Or(walk(n.Pipe, atRoot), walk(n.List, false), walk(n.ElseList, atRoot))
	case *parse.FieldNode:
		if atRoot {
			return variable(n.Ident)
		}
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			return variable(n.Ident[1:])
		}
	}
	return nil
}

func walkAll(nodes []parse.Node, atRoot bool) error {
	for _, n := range nodes {
		if err := walk(n, atRoot); err != nil {
			return err
		}
	}
	return nil
}

// replaced are the functions that HCL functions have replaced: calling one fails.
var replaced = []string{"user", "env", "template_dir", "sed", "consul_key", "vault", "aws_secretsmanager", "aws_secretsmanager_raw"}

// variable returns an error if there is no variable of the name.
func variable(names []string) error {
	switch {
	case names[0] == sourceTags:
		return nil
	case !slices.Contains(variables, names[0]):
		return fmt.Errorf("there is no variable .%s; there are .%s and .%s", names[0], strings.Join(variables, ", ."), sourceTags)
	case len(names) > 1:
		return fmt.Errorf("the variable .%s is a string and has no .%s", names[0], names[1])
	}
	return nil
}

// The limits of EC2 on tags.
const (
	maxKey   = 128 // characters
	maxValue = 256
)

// ownTags are the tags by which a build marks the resources that it owns.
var ownTags = []string{ownership.RunTag, ownership.BuildTag, ownership.ContinuesTag}

// said are the key prefixes of the tags in which bake records the verifications, inputs
// and approvals of an image. A template cannot set such tags.
var said = []string{"bake:approved:", imagetag.Verified, imagetag.Inputs}

// CheckTags reports tags that EC2 refuses. It checks texts that are rendered later as far
// as they are known.
func CheckTags(c *schema.Checker, tags Tags) {
	for _, b := range tags.all() {
		b.check(c)
	}
	CheckTogether(c, tags)
}

// CheckTogether reports sets of tags that together exceed the limit for the one resource
// that gets all of them.
func CheckTogether(c *schema.Checker, sets ...Tags) {
	keys := map[string]bool{}
	for _, set := range sets {
		for _, b := range set.all() {
			keys[b.key] = true
		}
	}
	if n, most := len(keys), ownership.MostTags-ownership.Tagged; n > most {
		c.Errorf(sets[len(sets)-1].last(), "Too many tags",
			"One resource gets %d tags. EC2 allows %d, and bake needs two of them during the build: at most %d are left.", n, ownership.MostTags, most)
	}
}

func (b block) check(c *schema.Checker) {
	checkText(c, b.ptr, b.key)
	checkText(c, b.ptr, b.value)
	key, _, more := strings.Cut(b.key, "{{")
	if more {
		key += "_" // placeholder for the unknown part
	}
	value, _, _ := strings.Cut(b.value, "{{")
	if why := refused(key, value); why != "" {
		c.Errorf(b.ptr, "Invalid tag", "%s", why)
	}
}

// refused returns why EC2 would refuse a tag, or "".
func refused(key, value string) string {
	switch {
	case key == "":
		return "The key of a tag cannot be empty."
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return fmt.Sprintf("The key %q begins with aws:, which is reserved for AWS.", key)
	case slices.Contains(ownTags, key), slices.ContainsFunc(said, func(begin string) bool { return strings.HasPrefix(key, begin) }):
		return fmt.Sprintf("bake itself writes the tag %q, and relies on it; choose another key.", key)
	case utf8.RuneCountInString(key) > maxKey:
		return fmt.Sprintf("The key \"%.20s...\" has %d characters; AWS allows %d.", key, utf8.RuneCountInString(key), maxKey)
	case utf8.RuneCountInString(value) > maxValue:
		return fmt.Sprintf("The value of the tag %q has %d characters; AWS allows %d.", key, utf8.RuneCountInString(value), maxValue)
	}
	return ""
}
