package ec2

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/machine"
	"bake/cloud/wire"
)

// Managed reports whether one of the caller's instances is running and has an instance
// profile.
func (s *Service) Managed(c wire.Caller, id string) bool {
	return view(s, func(st *state) bool { return st.managed(c, id) != nil })
}

// DialManaged connects to a port of a managed instance from inside it, so that security
// groups do not apply.
func (s *Service) DialManaged(ctx context.Context, c wire.Caller, id string, port uint16) (net.Conn, error) {
	m := view(s, func(st *state) machine.Machine { return st.managed(c, id) })
	if m == nil {
		return nil, kindInstance.notFound(id)
	}
	return m.Dial(ctx, port)
}

// RunManaged runs a command on a managed instance. The error is [machine.ErrEnded] if the
// instance is not managed.
func (s *Service) RunManaged(ctx context.Context, c wire.Caller, id string, command machine.Command) (status int, err error) {
	m := view(s, func(st *state) machine.Machine { return st.managed(c, id) })
	if m == nil {
		return 0, machine.ErrEnded
	}
	return m.Exec(ctx, command)
}

// RebootManaged reboots a managed instance and returns when its machine has started again.
// The services in it may not have started yet. The error is [machine.ErrEnded] if the machine
// does not start or is no longer managed.
func (s *Service) RebootManaged(ctx context.Context, c wire.Caller, id string) error {
	var r *runner
	var changed <-chan struct{}
	err := s.update(func(st *state) error {
		if st.managed(c, id) == nil {
			return machine.ErrEnded
		}
		r = st.runners[id]
		changed = r.changed
		r.aim(goalReboot, reasonUser)
		st.halt(ctx, id, r)
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case <-changed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if view(s, func(st *state) bool { return r.goal >= goalStop || st.managed(c, id) == nil }) {
		return machine.ErrEnded
	}
	return nil
}

// managed returns the machine of a managed instance, or nil.
func (s *state) managed(c wire.Caller, id string) machine.Machine {
	in, r := s.instances.Rows[id], s.runners[id]
	if in == nil || r == nil || r.machine == nil || in.OwnerId != c.Account || in.Region != c.Region || in.IamInstanceProfile == nil {
		return nil
	}
	return r.machine
}

// temporaryKey is a key that EC2 Instance Connect has sent to an instance.
type temporaryKey struct {
	user, key string
	until     time.Time
}

// temporaryKeyAge is how long a temporary key is accepted.
const temporaryKeyAge = time.Minute

// AddTemporaryKey adds, for a minute, a key to the metadata of one of the caller's
// instances. The user may log in with that key.
func (s *Service) AddTemporaryKey(c wire.Caller, id, zone, user, key string) error {
	return s.guarded.Update(func(st *state) error {
		in := st.instances.Rows[id]
		if in == nil || in.OwnerId != c.Account || in.Region != c.Region || zone != "" && aws.ToString(in.Placement.AvailabilityZone) != zone {
			return wire.Errorf("EC2InstanceNotFoundException", "The specified instance was not found.")
		}
		r := st.runners[id]
		if r == nil || r.machine == nil {
			return wire.Errorf("EC2InstanceStateInvalidException", "Unable to connect because the instance is not in a valid state. Connecting to a stopped or terminated instance is not supported.")
		}
		now := s.opts.Clock.Now()
		r.temporaryKeys = slices.DeleteFunc(r.temporaryKeys, func(k temporaryKey) bool { return !now.Before(k.until) || k.user == user && k.key == key })
		r.temporaryKeys = append(r.temporaryKeys, temporaryKey{user, key, now.Add(temporaryKeyAge)})
		return nil
	})
}

// temporaryKeys returns an instance's current temporary keys, by user.
func (s *state) temporaryKeys(id string) map[string][]string {
	r := s.runners[id]
	if r == nil {
		return nil
	}
	keys := map[string][]string{}
	for _, k := range r.temporaryKeys {
		if s.opts.Clock.Now().Before(k.until) {
			keys[k.user] = append(keys[k.user], k.key)
		}
	}
	return keys
}
