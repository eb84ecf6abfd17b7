package cloud

import (
	"encoding/json"
	"net/http"
	"strings"

	"bake/cloud/wire"
)

// contentsService is the service, by the name in a signature's scope, that says what an
// image is made of, for who shares the directory of images with the cloud. It is no
// service of AWS. GET of /ID answers with an [ec2.Contents] of the image with that id in
// the signature's region; with ?own also with its own layers, which are measured for it.
const contentsService = "contents"

func (c *Cloud) serveContents(w http.ResponseWriter, r *http.Request, scope wire.Scope) {
	caller, _, ok := c.ownRequest(w, r, scope)
	if !ok {
		return
	}
	contents, err := c.ec2.Contents(wire.WithCaller(r.Context(), caller), strings.TrimPrefix(r.URL.Path, "/"))
	if err == nil && r.URL.Query().Has("own") {
		contents.Own, err = c.ec2.Own(r.Context(), contents)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(contents) // a client that has gone needs no answer
}
