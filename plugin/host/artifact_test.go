package host

import (
	"bake/builder"
)

func artifactOf(id string) *builder.Artifact {
	return &builder.Artifact{BuilderID: "fake.builder", ID: id, Text: "a fake", Files: []string{"a.img"}, Data: builder.Data{"ID": builder.Text("i-1")}}
}
