package bakefile

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"bake/config/lang"
	"bake/config/schema"
	"bake/golden/channels"
	"bake/internal/lazyregexp"
)

// Channel are the arguments of a channel block. A channel is a Systems Manager parameter
// with the ID of the channel's current image, in each region and account of the image.
type Channel struct {
	Name string `hcl:"name,label"`

	// Verifications, checks and scans that the image must have passed, such as
	// `verify.boot` or `checks.baseline`.
	Requires []string `hcl:"requires,optional"`

	// Channel that must name the image before this one can.
	From string `hcl:"from,optional"`

	// How long `from` must have named the image.
	Soak time.Duration `hcl:"soak,optional"`

	// Require that somebody approves the image for this channel, with `bake images
	// approve`.
	Approval bool `hcl:"approval,optional"`

	// Name of the parameter. Not set: `/bake/IMAGE/CHANNEL`.
	Parameter string `hcl:"parameter,optional"`

	// Webhook: URL to which a POST request with JSON is sent when the channel has moved. A
	// failure causes only a warning.
	Webhook string `hcl:"webhook,optional"`
}

var parameterName = lazyregexp.New(`^/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,13}$`)

// Validate implements [schema.Validator].
func (h *Channel) Validate(c *schema.Checker) {
	if h.Parameter != "" && (!parameterName.Get().MatchString(h.Parameter) || strings.HasPrefix(strings.ToLower(h.Parameter), "/aws") || strings.HasPrefix(strings.ToLower(h.Parameter), "/ssm")) {
		c.Errorf(&h.Parameter, "Invalid parameter", "%q is not a name for a parameter: it is a path such as /golden/web/stable, of letters, digits and _.-, and does not begin with /aws or /ssm.", h.Parameter)
	}
	if h.Soak < 0 {
		c.Errorf(&h.Soak, "Invalid duration", "soak cannot be negative.")
	}
	if h.Soak > 0 && h.From == "" && c.Known(&h.From) {
		c.Errorf(&h.Soak, "Soak without a channel before", "soak is how long the image must have been in the channel that from names; set from.")
	}
	if u, err := url.Parse(h.Webhook); h.Webhook != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		c.Errorf(&h.Webhook, "Invalid URL", "webhook must be the URL of a web server, such as \"https://ci.example.com/hook\".")
	}
}

// Rule returns the requirements of the channel for an image.
func (h *Channel) Rule() channels.Rule {
	return channels.Rule{Name: h.Name, Requires: h.Requires, From: h.From, Soak: h.Soak, Approval: h.Approval}
}

// ParameterOf returns the name of the parameter for an image.
func (h *Channel) ParameterOf(image string) string {
	if h.Parameter != "" {
		return h.Parameter
	}
	return channels.Parameter(image, h.Name)
}

// parameters reports channels of an image whose parameters are invalid or also used for
// another image. taken holds the channels by parameter.
func (r *reader) parameters(i placed[Image], image string, builds int, taken map[string]string) {
	key := ""
	if of := r.t.Instance(); of != nil {
		key = of.Key
	}
	for n := range i.options.Channels {
		h := &i.options.Channels[n]
		if !i.src.Known(&h.Parameter) {
			continue
		}
		parameter, at := h.ParameterOf(image), i.src.Range(&h.Name)
		switch other := taken[parameter]; {
		case builds > 1:
			r.complain(at, "Several builds make the image", "A channel names one image, and the image %s is made by %d builds. Give each an image block of its own.", image, builds)
		case h.Parameter == "" && !parameterName.Get().MatchString(parameter):
			r.complain(at, "Invalid parameter", "%q is not a name for a parameter, which has letters, digits and _.-; set parameter.", parameter)
		case key != "" && h.Parameter != "" && !strings.Contains(parameter, key):
			r.complain(i.src.Range(&h.Parameter), "One parameter for several images", "Each image of for_each needs a parameter of its own. Write ${each.key} in it.")
		case other != "":
			r.complain(at, "One parameter for two channels", "%s is the parameter of channel %s already.", parameter, other)
		}
		taken[parameter] = h.Name + " of " + image
	}
}

// channels checks the channels of an image together.
func (o *Image) channels(c *schema.Checker, seen map[string]string) {
	var names, gates []string
	for i := range o.Channels {
		unique(c, seen, "channel", &o.Channels[i].Name)
		names = append(names, o.Channels[i].Name)
	}
	for _, k := range o.Checks {
		gates = append(gates, "checks."+k.Name)
	}
	for _, v := range o.Verify {
		gates = append(gates, "verify."+v.Name)
	}
	for i := range o.Scan {
		gates = append(gates, "scan."+o.Scan[i].FullName())
	}
	for i := range o.Channels {
		h := &o.Channels[i]
		if h.Parameter == "" && !parameterName.Get().MatchString("/bake/image/"+h.Name) && h.Name != "" {
			c.Errorf(&h.Name, "Invalid name", "%q cannot be part of the name of a parameter, which has letters, digits and _.-; set parameter.", h.Name)
		}
		for _, r := range h.Requires {
			if !slices.Contains(gates, r) {
				c.Errorf(&h.Requires, "Nothing of that name", "The image has no %s.%s It has: %s.", r, lang.DidYouMean(r, gates), or(gates))
			}
		}
		if h.From == "" {
			continue
		}
		switch at := slices.Index(names, h.From); {
		case at < 0:
			c.Errorf(&h.From, "No such channel", "The image has no channel %q.%s", h.From, lang.DidYouMean(h.From, names))
		case at >= i:
			c.Errorf(&h.From, "Channels out of order", "An image goes from channel to channel in the order in which they are written: %q must come before %q.", h.From, h.Name)
		}
	}
}
