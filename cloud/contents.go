package cloud

import (
	"encoding/json"
	"net/http"
	"strings"

	"bake/cloud/wire"
)

// contentsService is the name, in a signature's scope, of a service that AWS does not have. It
// reports the contents of an image to clients that share the cloud's image directory. GET /ID
// returns the [ec2.Contents] of that image in the signature's region; with ?own, it includes the
// image's own layers and measures their sizes.
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
	_ = json.NewEncoder(w).Encode(contents) // fails only if the client is gone
}
