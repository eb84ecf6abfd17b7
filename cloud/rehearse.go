package cloud

import (
	"encoding/json"
	"io"
	"net/http"
	"time"

	"bake/cloud/ec2"
	"bake/cloud/wire"
)

// rehearsalService is the service, by the name in a signature's scope, that shows and
// changes the cloud's delays and fault rules. AWS has no such service. GET returns a
// [rehearsed]; PUT accepts the content of a [Rehearsal] file (delays, rules, or both) and
// replaces the current ones.
const rehearsalService = "rehearsal"

// rehearsed is the rehearsal in effect.
type rehearsed struct {
	Delays Delays       `json:"delays"`
	Faults *Faults      `json:"faults"`
	Counts []ec2.Counts `json:"counts"` // one for each rule
}

// ownRequest reads and verifies a request to a service that AWS does not have. If the
// request is not signed with an account's own access key (a role's temporary credentials
// are not enough), ownRequest answers with the error and returns false.
func (c *Cloud) ownRequest(w http.ResponseWriter, r *http.Request, scope wire.Scope) (caller wire.Caller, body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRehearsal))
	if err != nil {
		refuse(w, requestError(err))
		return caller, nil, false
	}
	caller, secret, err := c.identify(r, scope)
	if err == nil {
		err = scope.Verify(r.Context(), r, body, secret, time.Now())
	}
	if err == nil && caller.SessionARN != "" {
		err = &wire.Error{Code: "AccessDenied", Message: "This request must be signed with an account's own access key.", Status: http.StatusForbidden}
	}
	if err != nil {
		refuse(w, err)
		return caller, nil, false
	}
	return caller, body, true
}

func refuse(w http.ResponseWriter, err error) {
	e := wire.AsError(err)
	http.Error(w, e.Message, e.HTTPStatus())
}

func (c *Cloud) serveRehearsal(w http.ResponseWriter, r *http.Request, scope wire.Scope) {
	_, body, ok := c.ownRequest(w, r, scope)
	if !ok {
		return
	}
	if r.Method == http.MethodPut {
		next, err := readRehearsal("rehearsal", body)
		if err != nil {
			refuse(w, wire.Errorf("InvalidParameterValue", "%v", err))
			return
		}
		var given struct{ Delays json.RawMessage }
		if err := json.Unmarshal(body, &given); err != nil {
			refuse(w, err)
			return
		}
		if given.Delays != nil {
			c.ec2.SetDelays(next.Delays)
		}
		if next.Faults != nil {
			c.ec2.SetFaults(next.Faults)
		}
	}
	delays, faults := c.ec2.Rehearsed()
	_, counts := faults.Rules()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(rehearsed{delays, faults, counts}) // fails only if the client is gone
}
