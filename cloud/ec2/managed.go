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
	_, ok := s.managed(c, id)
	return ok
}

// DialManaged connects to a port of a managed instance from inside, past its
// security groups.
func (s *Service) DialManaged(ctx context.Context, c wire.Caller, id string, port uint16) (net.Conn, error) {
	m, ok := s.managed(c, id)
	if !ok {
		return nil, kindInstance.notFound(id)
	}
	return m.Dial(ctx, port)
}

func (s *Service) managed(c wire.Caller, id string) (machine.Machine, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, r := s.instances.rows[id], s.runners[id]
	if in == nil || r == nil || r.machine == nil || in.OwnerId != c.Account || in.Region != c.Region || in.IamInstanceProfile == nil {
		return nil, false
	}
	return r.machine, true
}
