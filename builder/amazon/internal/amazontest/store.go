package amazontest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

var instanceID = regexp.MustCompile(`<instanceId>(i-[0-9a-f]+)</instanceId>`)

// InstanceStore makes the world simulate instance-store images, which the embedded EC2
// does not have: it describes images as such, and makes the image of a bundle from the
// newest instance instead.
func InstanceStore(w *World) {
	var (
		mu     sync.Mutex
		newest string
	)
	w.Adapt = func(c Call, body []byte, rw http.ResponseWriter, serve func([]byte, http.ResponseWriter)) {
		answer := httptest.NewRecorder()
		switch {
		case c.Action == "RegisterImage" && c.Params["ImageLocation"] != "":
			mu.Lock()
			instead := url.Values{"Action": {"CreateImage"}, "Version": {"2016-11-15"}, "InstanceId": {newest}}
			mu.Unlock()
			for k, v := range c.Params {
				if k == "Name" || k == "Description" || strings.HasPrefix(k, "TagSpecification.") {
					instead.Set(k, v)
				}
			}
			serve([]byte(instead.Encode()), answer)
		default:
			serve(body, answer)
		}
		text := answer.Body.String()
		switch c.Action {
		case "RegisterImage":
			text = strings.ReplaceAll(text, "CreateImageResponse", "RegisterImageResponse")
		case "RunInstances":
			if m := instanceID.FindStringSubmatch(text); m != nil {
				mu.Lock()
				newest = m[1]
				mu.Unlock()
			}
		case "DescribeImages":
			text = strings.ReplaceAll(text, "<rootDeviceType>ebs<", "<rootDeviceType>instance-store<")
		}
		for k, v := range answer.Header() {
			if k != "Content-Length" {
				rw.Header()[k] = v
			}
		}
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write([]byte(text))
	}
}
