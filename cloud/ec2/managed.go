package ec2

import (
	"context"
	"net"

	"bake/cloud/machine"
	"bake/cloud/wire"
)

// Managed reports whether an instance of the caller's runs and has an instance
// profile.
func (s *Service) Managed(c wire.Caller, id string) bool {
	return view(s, func(st *state) bool { return st.managed(c, id) != nil })
}

// DialManaged connects to a port of a managed instance from inside, past its
// security groups.
func (s *Service) DialManaged(ctx context.Context, c wire.Caller, id string, port uint16) (net.Conn, error) {
	m := view(s, func(st *state) machine.Machine { return st.managed(c, id) })
	if m == nil {
		return nil, kindInstance.notFound(id)
	}
	return m.Dial(ctx, port)
}

// managed is the machine of such an instance, or nil.
func (s *state) managed(c wire.Caller, id string) machine.Machine {
	in, r := s.instances.Rows[id], s.runners[id]
	if in == nil || r == nil || r.machine == nil || in.OwnerId != c.Account || in.Region != c.Region || in.IamInstanceProfile == nil {
		return nil
	}
	return r.machine
}
