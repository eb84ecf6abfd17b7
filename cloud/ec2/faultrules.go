package ec2

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agext/levenshtein"

	"bake/cloud/s3"
	"bake/cloud/wire"
)

// services are the services whose calls rules can apply to.
var services = []string{"autoscaling", "ec2", "ec2-instance-connect", "iam", "kms", "organizations", "s3", "secretsmanager", "ssm", "sts"}

// actions are the actions of each service.
var actions = &actionNames{}

type actionNames struct {
	once sync.Once
	all  map[string][]string
	err  error
}

func (a *actionNames) load() (map[string][]string, error) {
	a.once.Do(func() {
		a.all = map[string][]string{"s3": s3.Actions()}
		for _, service := range services {
			if service == "s3" {
				continue
			}
			var model *wire.Model
			if model, a.err = wire.Load(service); a.err != nil {
				return
			}
			for name := range model.Operations {
				a.all[service] = append(a.all[service], name)
			}
		}
	})
	return a.all, a.err
}

// Actions of EC2.
var (
	launching = []string{"RunInstances", "CreateFleet", "RequestSpotInstances", "StartInstances"}
	working   = []string{"CreateImage", "CopyImage", "CreateSnapshot", "CreateSnapshots", "CopySnapshot", "CreateStoreImageTask", "CreateRestoreImageTask", "ExportImage", "ImportImage", "ModifySnapshotTier", "RestoreSnapshotTier"}
	showing   = []string{"CreateImage", "CopyImage", "RegisterImage", "CreateSnapshot", "CreateSnapshots", "CreateVolume", "CreateSecurityGroup", "RunInstances", "CreateFleet", "RequestSpotInstances"}
)

// targets returns the actions of EC2 that an effect on a call's work can apply to, or nil if
// the effect is on the call.
func (e Effect) targets() []string {
	switch e {
	case EffectFail:
		return slices.Concat(working, launching)
	case EffectStuck:
		return slices.Concat([]string{"StopInstances", "TerminateInstances"}, working, launching)
	case EffectHide:
		return showing
	}
	return nil
}

// fieldError is an error in a field of a rule.
type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

func (r *Fault) check() error {
	for _, check := range []func() error{r.checkValues, r.checkEffect, r.checkAction, r.checkLaunches} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func wrongField(field, format string, args ...any) error {
	return &fieldError{field, fmt.Errorf(format, args...)}
}

// checkValues reports values that no rule can have.
func (r *Fault) checkValues() error {
	switch {
	case !slices.Contains(effects, r.Effect):
		return wrongField("effect", "there is no effect %q%s; use %s", r.Effect, meant(string(r.Effect), texts(effects)), oneOf(effects))
	case r.Effect == EffectError && r.Code == "":
		return errors.New("the effect error needs a code")
	case r.Service != "" && !slices.Contains(services, r.Service):
		return wrongField("service", "there is no service %q%s; use %s", r.Service, meant(r.Service, services), oneOf(services))
	case r.Probability < 0 || r.Probability > 1:
		return wrongField("probability", "probability %v is not between 0 and 1", r.Probability)
	case r.Nth < 0 || r.Calls < 0 || r.Times < 0:
		return errors.New("nth, calls and times cannot be negative")
	case r.For < 0 || r.After < 0:
		return errors.New("for and after cannot be negative")
	case r.Status != 0 && (r.Status < 400 || r.Status > 599):
		return wrongField("status", "status %d is not an HTTP error: use one from 400 to 599", r.Status)
	case r.Effect == EffectDelay && r.For == 0:
		return errors.New(`the effect delay needs "for", such as "10s"`)
	}
	return nil
}

// checkEffect reports fields that the rule's effect does not use.
func (r *Fault) checkEffect() error {
	e := r.Effect
	for _, f := range []struct {
		given, of bool // the rule sets the field; the effect uses it
		field     string
		is        string // format of the message that says which effects use it
	}{
		{r.For != 0, e.lasting(), "for", `"for" is for the effects delay, stuck, interrupt, hang, unreachable and metadata, not for %s`},
		{r.Times != 0, e == EffectHide, "times", `"times" is for the effect hide, not for %s; "calls" is the number of calls that a rule applies to`},
		{r.Code != "" || r.Message != "", e == EffectError || e == EffectFail, "code", `"code" and "message" are for the effects error and fail, not for %s`},
		{r.Status != 0, e == EffectError || e == EffectMetadata, "status", `"status" is for the effects error and metadata, not for %s`},
		{r.After != 0, e.onMachine(), "after", `"after" is for the effects ` + strings.Replace(oneOf(onMachine), " or ", " and ", 1) + `, not for %s`},
	} {
		if f.given && !f.of {
			return wrongField(f.field, f.is, e)
		}
	}
	if launches := e == EffectError || e == EffectFail || e == EffectStuck || e.onMachine(); (r.Zone != "" || r.InstanceType != "") && !launches {
		return fmt.Errorf("zone and instance_type are for rules about launches; the effect %s does not apply to launches", e)
	}
	return nil
}

// checkLaunches reports a rule that cannot match an action its effect applies to.
func (r *Fault) checkLaunches() error {
	of := r.Effect.targets()
	switch {
	case r.aboutLaunch() && !r.isFor(launching...):
		return errors.New("the rule is about launches: its action must be RunInstances, CreateFleet or StartInstances of ec2")
	case r.aboutPools() && !r.isFor("RunInstances", "CreateFleet"):
		return errors.New("the rule is about capacity for launches: its action must be RunInstances or CreateFleet of ec2")
	case of != nil && !r.isFor(of...):
		return fmt.Errorf("the effect %s applies only to these actions of ec2: %s", r.Effect, strings.Join(of, ", "))
	}
	return nil
}

// checkAction reports an action that does not exist.
func (r *Fault) checkAction() error {
	if r.Action == "" {
		return nil
	}
	if _, err := path.Match(r.Action, ""); err != nil {
		return wrongField("action", "action %q is not a valid pattern", r.Action)
	}
	all, err := actions.load()
	if err != nil {
		return err
	}
	of, names := "the local cloud", []string{}
	for _, service := range services {
		if r.Service == "" || r.Service == service {
			names = append(names, all[service]...)
		}
	}
	if r.Service != "" {
		of += "'s " + r.Service
	}
	if slices.ContainsFunc(names, func(name string) bool { ok, _ := path.Match(r.Action, name); return ok }) {
		return nil
	}
	return &fieldError{"action", fmt.Errorf("no action of %s matches %q%s", of, r.Action, meant(r.Action, names))}
}

// meant suggests the name in names that is most similar to name, or returns "".
func meant(name string, names []string) string {
	best, distance := "", 4
	for _, n := range names {
		if d := levenshtein.Distance(strings.ToLower(name), strings.ToLower(n), nil); d < distance && 3*d < 2*len(name) {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// isFor reports whether the rule can apply to one of these EC2 actions.
func (r *Fault) isFor(actions ...string) bool {
	return slices.ContainsFunc(actions, func(action string) bool {
		return r.matches(call{service: "ec2", action: action, region: r.Region, account: r.Account})
	})
}

func texts[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

// oneOf joins values for a message: "a, b or c".
func oneOf[T ~string](values []T) string {
	all := texts(values)
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

// faultsFile is the JSON form of Faults.
type faultsFile struct {
	Seed  *uint64           `json:"seed"`
	Rules []json.RawMessage `json:"rules"`
}

// UnmarshalJSON reads {"seed": 1, "rules": [ … ]}. Without a seed, it chooses a random
// one.
func (f *Faults) UnmarshalJSON(data []byte) error {
	var file faultsFile
	if err := strict(data, &file); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	seed := uint64(rand.Uint32())
	if file.Seed != nil {
		seed = *file.Seed
	}
	rules := make([]Fault, len(file.Rules))
	for i, raw := range file.Rules {
		if err := rules[i].read(raw); err != nil {
			return ruleError(i, err)
		}
	}
	made, err := NewFaults(seed, rules...)
	if err != nil {
		return err
	}
	f.rules, f.counts, f.seed, f.chance, f.replaced = made.rules, made.counts, made.seed, made.chance, made.replaced
	return nil
}

// ruleError returns a [RuleError] for the rule with that index.
func ruleError(index int, err error) error {
	e := &RuleError{Index: index, Err: err}
	if at, ok := errors.AsType[*fieldError](err); ok {
		e.Field = at.field
	}
	return e
}

// MarshalJSON writes what UnmarshalJSON reads.
func (f *Faults) MarshalJSON() ([]byte, error) {
	rules, _ := f.Rules()
	seed := f.Seed()
	file := faultsFile{Seed: &seed, Rules: make([]json.RawMessage, len(rules))}
	for i, r := range rules {
		var err error
		if file.Rules[i], err = r.write(); err != nil {
			return nil, err
		}
	}
	return json.Marshal(file)
}

// writtenFault is the JSON form of a Fault.
type writtenFault struct {
	*Fault
	For   string `json:"for,omitempty"`
	After string `json:"after,omitempty"`
}

// write returns the rule as JSON.
func (r Fault) write() ([]byte, error) {
	w := writtenFault{Fault: &r}
	if r.For != 0 {
		w.For = r.For.String()
	}
	if r.After != 0 {
		w.After = r.After.String()
	}
	return json.Marshal(w)
}

// read sets the rule from JSON.
func (r *Fault) read(data []byte) error {
	rule := writtenFault{Fault: r}
	if err := strict(data, &rule); err != nil {
		return fmt.Errorf("%w; a rule may have service, action, region, account, zone, instance_type, nth, calls, probability, effect, code, message, status, times, for and after", err)
	}
	for _, d := range []struct {
		name, text string
		into       *time.Duration
	}{{"for", rule.For, &r.For}, {"after", rule.After, &r.After}} {
		v, err := time.ParseDuration(cmp.Or(d.text, "0"))
		if err != nil {
			return &fieldError{d.name, fmt.Errorf("%s: %q is not a duration such as 30s", d.name, d.text)}
		}
		*d.into = v
	}
	return nil
}

// strict decodes data into v. Fields that v does not have are an error.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
