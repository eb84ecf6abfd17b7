package ec2

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/machine"
)

// spotNotice is how long before taking back a Spot Instance EC2 gives notice.
const spotNotice = 2 * time.Minute

var (
	reasonSpot   = reason{"Server.SpotInstanceTermination", "Spot instance termination", "Server.SpotInstanceTermination"}
	reasonFailed = reason{"Server.InternalError", "The host of the instance failed", "Server.InternalError"}
)

// startFaults applies the rules of an instance's launch to its machine, which has just
// started its first boot. Effects end when other rules replace these.
func (s *state) startFaults(id string, r *runner, m machine.Machine) {
	for _, f := range r.rules {
		if !f.Effect.onMachine() {
			continue
		}
		s.start(func(s *Service) {
			ctx, cancel := context.WithCancel(s.ctx)
			defer cancel()
			go func() {
				select {
				case <-m.Done():
				case <-r.replaced:
				case <-ctx.Done():
				}
				cancel()
			}()
			s.runFault(ctx, id, r, m, f)
		})
	}
	r.rules = nil
}

// runFault applies a rule to a running machine. ctx ends with the machine or with the
// rule.
func (s *Service) runFault(ctx context.Context, id string, r *runner, m machine.Machine, f Fault) {
	if s.opts.Clock.Sleep(ctx, f.After) != nil {
		return
	}
	// wait waits until the effect has lasted long enough or the rule is replaced.
	wait := func() { _ = s.opts.Clock.Sleep(ctx, f.lasts()) }
	set := func(change func()) {
		_ = s.update(func(*state) error { change(); return nil }) // cannot fail
	}
	switch f.Effect {
	case EffectDie:
		s.terminateByService(ctx, id, r, reasonFailed)
	case EffectHang:
		if err := m.Freeze(ctx); err != nil {
			s.log(id, "hang", err)
			return
		}
		wait()
		err := m.Thaw()
		select {
		case <-m.Done():
		default:
			if !errors.Is(err, machine.ErrReleased) { // the machine is being stopped and is already running again
				s.log(id, "go on", err)
			}
		}
	case EffectUnreachable:
		s.setUnreachable(r, true)
		wait()
		s.setUnreachable(r, false)
	case EffectMetadata:
		set(func() { r.noMetadata = cmp.Or(f.Status, http.StatusServiceUnavailable) })
		wait()
		set(func() { r.noMetadata = 0 })
	case EffectInterrupt:
		notice := cmp.Or(f.For, spotNotice)
		at := s.now().Add(notice)
		set(func() { r.notice = &at })
		if s.opts.Clock.Sleep(ctx, notice) == nil {
			s.terminateByService(ctx, id, r, reasonSpot)
			return
		}
		set(func() { r.notice = nil })
	}
}

// setUnreachable disconnects the machine of an instance from all networks, or reconnects
// it.
func (s *Service) setUnreachable(r *runner, off bool) {
	_ = s.update(func(st *state) error {
		r.cutOff = off
		st.refreshPolicies()
		return nil
	})
}

// terminateByService terminates an instance without a request of its user.
func (s *Service) terminateByService(ctx context.Context, id string, r *runner, why reason) {
	s.log(id, "take away", s.update(func(st *state) error {
		if r.goal >= goalStop {
			return nil // already terminating
		}
		err := st.instances.Edit(id, func(in *instance) {
			in.setState(types.InstanceStateNameShuttingDown)
			in.setReason(why, s.now())
		})
		r.aim(goalTerminate, why)
		st.halt(ctx, id, r)
		return err
	}))
}
