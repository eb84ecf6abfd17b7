package goss

import "github.com/hashicorp/hcl/v2"

func (l *loader) render(path string, written []byte) (*source, *hcl.Diagnostic) {
	t := newText(written)
	return &source{name: path, written: t, rendered: t}, nil
}
