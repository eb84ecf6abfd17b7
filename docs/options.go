package docs

import (
	"encoding/json"
	"sync"

	"bake/config/schema"
)

// commentsPage has the comments of the fields of all structs of options, as [schema.Docs]
// takes them. It is made of the sources when it is packed.
const commentsPage = "options.json"

var comments = sync.OnceValues(func() (all map[string]string, err error) {
	pages, err := Pages(commentsPage)
	if err == nil {
		err = json.Unmarshal([]byte(pages[0].Text), &all)
	}
	return all, err
})

// Options is the documentation of the options of which defaults are the default values, as
// their struct and its comments say.
func Options(defaults any) ([]schema.Doc, error) {
	all, err := comments()
	if err != nil {
		return nil, err
	}
	return schema.Docs(defaults, all)
}
