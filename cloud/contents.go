package cloud

import (
	"encoding/json"
	"net/http"
	"strings"

	"bake/cloud/wire"
)

// contentsService is the service, by the name in a signature's scope, that reports what an
// image is made of to clients that share the cloud's image directory. AWS has no such
// service. GET /ID returns the [ec2.Contents] of the image with that id in the signature's
// region; with ?own, also the image's own layers, whose sizes are measured for the
// request.
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
	_ = json.NewEncoder(w).Encode(contents) // an error means that the client has gone
}
