package host

import (
	"context"
	"errors"
	"maps"
	"strings"

	"bake/builder"
	"bake/plugin/wire"
	"bake/step"
)

// hostedProvisioner is a plugin's provisioner.
type hostedProvisioner struct{ hosted }

// Provision implements [provisioner.Provisioner].
func (h hostedProvisioner) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	proc, err := h.ready(ctx, s)
	if err != nil {
		return err
	}
	u := newUI(ctx, s.As(h.label), h.plugin)
	known, told := context.WithCancelCause(context.WithoutCancel(ctx)) // ends once the plugin knows that it is cancelled
	defer told(nil)
	machine := serveMachine(known, proc, m.Communicator)
	methods := u.methods()
	maps.Copy(methods, machine.methods())
	id, begun := proc.serve(methods, u.progress)
	args := struct {
		GeneratedData map[string]any
		StreamID      uint32
	}{generatedData(m, s.Run.ID), id}
	err = h.work(ctx, s, proc, job{method: "Provision", args: args, begun: begun, grace: cancelGrace, told: told})
	closed := proc.Close() // ends the plugin's remaining work on the machine
	machine.running.Wait()
	if closed != nil {
		return errors.Join(err, closed)
	}
	if cause := context.Cause(ctx); cause != nil && err == nil { // it had ended before it knew
		return cause
	}
	if remote, ok := errors.AsType[wire.RemoteError](err); ok {
		return explained(remote, machine.lastError())
	}
	return err
}

// explained adds failures of calls that bake made on the plugin's behalf to a plugin's
// error.
func explained(said wire.RemoteError, cause error) error {
	text := strings.TrimSpace(clip(said.Error(), maxComplaint))
	if cause == nil {
		return errors.New(text)
	}
	if why := cause.Error(); !strings.Contains(text, why) {
		text += " (" + why + ")"
	}
	return &failed{text, cause}
}
