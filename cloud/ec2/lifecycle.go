package ec2

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/confined"
	"bake/cloud/machine"
	"bake/cloud/metadata"
	"bake/cloud/network"
	"bake/cloud/wire"
)

// stopGrace is how long a machine may take to shut down before it is killed.
const stopGrace = time.Minute

// goal is what to do with an instance when its machine has ended. A stronger goal replaces a weaker
// one.
type goal int

const (
	goalNone   goal = iota // as the machine itself decides
	goalReboot             // start again
	goalStop
	goalTerminate
)

// reason is an EC2 state reason.
type reason struct {
	code, text string
	transition string // StateTransitionReason, without the time
}

var (
	reasonUser     = reason{"Client.UserInitiatedShutdown", "User initiated shutdown", "User initiated"}
	reasonInside   = reason{"Client.InstanceInitiatedShutdown", "Instance initiated shutdown", ""}
	reasonShutdown = reason{"Server.ScheduledStop", "The embedded cloud was shut down", "Service initiated"}
	reasonDied     = reason{"Server.InternalError", "The embedded cloud was stopped without shutting down the instance", "Service initiated"}
)

func reasonError(err error) reason {
	return reason{"Server.InternalError", wire.Message(err), "Server.InternalError"}
}

// runner is the run of an instance from a start until it is stopped or terminated. Its
// fields are guarded by the service's lock.
type runner struct {
	cancel        context.CancelCauseFunc // ends the work before the machine starts
	machine       machine.Machine         // nil while there is none
	changed       chan struct{}           // see notify
	goal          goal
	why           reason
	temporaryKeys []temporaryKey
	rules         []Fault         // the fault rules that apply to the launch
	replaced      <-chan struct{} // closed when the rules are replaced
	cutOff        bool            // disconnected from all networks
	noMetadata    int             // HTTP status with which the metadata service refuses requests; 0 means that it does not
	stuck         time.Duration   // added to the usual time of stopping or terminating
	notice        *time.Time      // when a Spot Instance will be taken back; nil if it will not
}

// notify wakes everything that waits for the instance's next machine, or for it to stop or terminate:
// it closes changed and replaces it.
func (r *runner) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// aim sets the goal to g unless it already has a stronger one.
func (r *runner) aim(g goal, why reason) {
	if g > r.goal {
		r.goal, r.why = g, why
	}
}

var errHalted = errors.New("the instance is ending")

// halt ends r's machine, or the work before it starts, according to r's goal.
func (s *state) halt(ctx context.Context, id string, r *runner) {
	m, kill := r.machine, r.goal == goalTerminate
	if m == nil {
		if r.goal >= goalStop {
			r.cancel(errHalted)
		}
		return
	}
	ctx = context.WithoutCancel(ctx)
	s.start(func(s *Service) {
		if kill {
			s.log(id, "kill", m.Kill())
			return
		}
		ctx, cancel := context.WithTimeout(ctx, stopGrace)
		defer cancel()
		s.log(id, "stop", m.Stop(ctx))
	})
}

func (e *env) log(id, what string, err error) {
	if err != nil {
		e.opts.Log.Error(what, "instance", id, "error", err)
	}
}

// launch runs a pending instance until it is stopped or terminated. caller is the context of the
// call that asked for it.
func (s *state) launch(caller context.Context, id string) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	in, _ := s.instances.Get(id)
	r := &runner{cancel: cancel, changed: make(chan struct{}), replaced: s.opts.Faults.Replaced(), rules: s.opts.Faults.atLaunch(caller, in)}
	s.runners[id] = r
	s.start(func(s *Service) {
		defer cancel(nil)
		var exit machine.Exit
		err := s.opts.Clock.Sleep(ctx, stuckFor(r.rules))
		if err == nil {
			err = failureOf(r.rules)
		}
		for again := err == nil; again; {
			var m machine.Machine
			if m, err = s.boot(ctx, id, r); err != nil {
				break
			}
			<-m.Done()
			exit = m.Exit()
			again = view(s, func(*state) bool {
				r.machine = nil
				again := r.goal == goalReboot || r.goal == goalNone && exit.Reason == machine.Reboot
				if again {
					r.goal = goalNone
				}
				return again
			})
		}
		s.settle(ctx, id, r, exit, err)
	})
}

// boot makes sure that the instance's base exists, then starts its machine.
func (s *Service) boot(ctx context.Context, id string, r *runner) (machine.Machine, error) {
	in := s.instance(id)
	if in.Base != "" {
		layers, err := s.opts.Images.Ensure(ctx, in.Base, s.opts.Progress)
		if err != nil {
			return nil, fmt.Errorf("the image %s could not be prepared: %w", *in.ImageId, err)
		}
		if err := s.editInstance(id, func(in *instance) { in.Layers, in.Base = layers, "" }); err != nil {
			return nil, err
		}
	}
	if !in.booted() {
		if arch := processorOf(in.Architecture); arch != "" && arch != runtime.GOARCH {
			s.opts.Progress(Progress{Note: fmt.Sprintf("The programs of %s are for %s and run in emulation on this host, many times slower.", id, in.Architecture)})
		}
		if err := s.opts.Clock.Sleep(ctx, s.delays().Launch); err != nil {
			return nil, err
		}
	}

	defer s.lockDisk(id)()
	in = s.instance(id)
	spec := s.spec(id, in)
	if blank, err := s.upper(id).Empty(); err != nil {
		return nil, err
	} else if blank && len(in.Layers) == 0 {
		return nil, fmt.Errorf("the root volume of the image %s is blank: there is nothing to boot", *in.ImageId)
	}
	err := s.placeVolumes(ctx, id)
	if err != nil {
		return nil, err
	}
	if spec.Layers, err = s.opts.Images.Paths(in.Layers); err != nil {
		return nil, err
	}
	m, err := s.opts.Driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return m, s.update(func(st *state) error {
		st.started(ctx, id, r, m)
		return nil
	})
}

// started records that the instance's machine runs, unless the instance is already ending.
func (s *state) started(ctx context.Context, id string, r *runner, m machine.Machine) {
	r.machine = m
	r.notify()
	if r.goal >= goalStop {
		s.halt(ctx, id, r)
		return
	}
	err := s.instances.Edit(id, func(in *instance) {
		in.Boots++
		in.setState(types.InstanceStateNameRunning)
		in.StateReason, in.StateTransitionReason = nil, nil
	})
	if err != nil {
		r.aim(goalStop, reasonError(err))
		s.halt(ctx, id, r)
	}
	s.refreshPolicies()
	s.startFaults(id, r, m)
}

// continuesTag marks the launch of an instance whose image is a copy of another instance's disk and
// that continues the work of that instance. If cloud-init had finished there, it does not run at
// the first start.
const continuesTag = "bake:continues"

// spec returns the machine.Spec of the instance's next boot, without its layers.
func (s *Service) spec(id string, in *instance) machine.Spec {
	private := netipAddr(in.PrivateIpAddress)
	inside := network.Config{
		Private: private,
		Public:  netipAddr(in.PublicIpAddress),
		PublicNow: func() netip.Addr {
			return view(s, func(st *state) (addr netip.Addr) {
				if now, ok := st.instances.Get(id); ok {
					addr = netipAddr(now.PublicIpAddress)
				}
				return addr
			})
		},
		Reach: s.opts.Reach,
		Metadata: metadata.Handler(s.opts.Clock.Now, func() metadata.Instance {
			return view(s, func(st *state) metadata.Instance { return st.metadataOf(id) })
		}),
		Peer: func(addr netip.Addr) network.Peer {
			return view(s, func(st *state) network.Peer { return st.peer(in, addr) })
		},
		Names: func(name string) (netip.Addr, bool) {
			addr := view(s, func(st *state) netip.Addr { return st.address(in, name) })
			return addr, addr.IsValid()
		},
	}
	inside.Policy = view(s, func(st *state) *policy {
		inside.Subnet = st.subnetPrefix(in)
		return st.policyOf(id, in)
	})
	spec := machine.Spec{
		ID:          id,
		Dir:         s.machineDir(id),
		Arch:        processorOf(in.Architecture),
		Type:        string(in.InstanceType),
		Limits:      limitsOf(in.InstanceType),
		Hostname:    "ip-" + strings.ReplaceAll(private.String(), ".", "-"),
		First:       !in.booted(),
		Continues:   slices.ContainsFunc(in.Tags, func(t types.Tag) bool { return aws.ToString(t.Key) == continuesTag }),
		User:        in.LoginUser,
		HasUserData: in.UserData != "",
		Console:     s.consoleFile(id),
		Network:     inside,
	}
	spec.Waiting = func(why string) {
		s.opts.Log.Info("launch waits", "instance", id, "why", why)
		s.log(id, "state reason", s.editInstance(id, func(in *instance) {
			in.StateReason = &types.StateReason{Code: aws.String("pending"), Message: aws.String(why)}
		}))
	}
	if root := in.root(); root != nil {
		if v, err := s.volume(*root.Ebs.VolumeId); err == nil {
			spec.RootSize = int64(aws.ToInt32(v.Size)) << 30
		}
	}
	if in.PublicKey != "" {
		spec.AuthorizedKeys = []string{in.PublicKey}
	}
	return spec
}

// settle brings the instance to stopped or terminated after its machine ended with exit, or
// could not be started because of err. If a stopping instance is stuck, terminating it
// ends ctx.
func (s *Service) settle(ctx context.Context, id string, r *runner, exit machine.Exit, err error) {
	var delay, stuck time.Duration
	terminating := view(s, func(st *state) bool {
		delay, stuck = st.ending(id, r, exit, err), r.stuck
		return r.goal == goalTerminate
	})
	if terminating {
		ctx = s.ctx
	}
	if s.opts.Clock.Sleep(ctx, stuck) != nil {
		s.opts.Log.Debug("stuck state cut short", "instance", id)
	}
	if s.opts.Clock.Sleep(s.ctx, delay) != nil {
		s.opts.Log.Debug("delay cut short", "instance", id)
	}
	// The instance may have been terminated while it was stopping.
	if view(s, func(*state) goal { return r.goal }) == goalTerminate {
		s.terminated(id)
		return
	}
	_ = s.update(func(st *state) error { st.stopped(id, r); return nil })
}

// ending sets the goal and the state of an instance whose machine has ended, and returns
// how long the transition takes.
func (s *state) ending(id string, r *runner, exit machine.Exit, err error) time.Duration {
	in, _ := s.instances.Get(id)
	goal, why := r.goal, r.why
	if goal < goalStop {
		goal = goalStop
		switch {
		case err != nil:
			why = reasonError(err)
			if !in.booted() {
				goal = goalTerminate
			}
		case exit.Reason == machine.PowerOff:
			why = reasonInside
			if in.ShutdownBehavior == types.ShutdownBehaviorTerminate {
				goal = goalTerminate
			}
		case exit.Reason == machine.Crashed:
			why = reasonError(fmt.Errorf("the machine crashed: %w", errors.Join(exit.Err, nil)))
			if exit.Err == nil {
				why = reasonError(errors.New("the machine crashed"))
			}
		default:
			why = reasonDied
		}
	}
	r.aim(goal, why)
	r.notify()
	state, delay := types.InstanceStateNameStopping, s.delays().Stop
	if goal == goalTerminate {
		state, delay = types.InstanceStateNameShuttingDown, s.delays().Terminate
	}
	s.log(id, "state", s.instances.Edit(id, func(in *instance) {
		in.setState(state)
		in.setReason(r.why, s.now())
	}))
	return delay
}

// stopped records that the instance is stopped and releases its public address.
func (s *state) stopped(id string, r *runner) {
	if r.goal == goalTerminate { // terminated at the last moment
		s.start(func(s *Service) { s.terminated(id) })
		return
	}
	delete(s.runners, id)
	s.log(id, "stopped", s.instances.Edit(id, func(in *instance) {
		in.setState(types.InstanceStateNameStopped)
		in.setReason(r.why, s.now())
		s.setAddress(in, false)
	}))
	s.refreshPolicies()
}

// terminated deletes everything that belongs to the instance, except the volumes to be kept, which
// it detaches. The row stays for an hour.
func (s *Service) terminated(id string) {
	defer s.lockDisk(id)()
	in := s.instance(id)
	layers := in.Layers
	if !in.deletesRoot() {
		var err error
		if layers, err = s.freezeDisk(s.ctx, id); err != nil {
			s.log(id, "keep the root volume", err)
		}
	}
	for _, b := range in.BlockDeviceMappings {
		if !aws.ToBool(b.Ebs.DeleteOnTermination) {
			s.log(id, "keep the volume "+*b.Ebs.VolumeId, s.takeOut(*b.Ebs.VolumeId, id, *b.DeviceName))
		}
	}
	_ = s.update(func(st *state) error { st.terminated(in, layers); return nil })
	s.log(id, "remove the disk", s.opts.Driver.Remove(context.WithoutCancel(s.ctx), s.machineDir(id)))
}

// terminated records that the instance is terminated. layers are the contents of its root volume.
func (s *state) terminated(in *instance, layers []string) {
	id, why := *in.InstanceId, reasonUser
	if r := s.runners[id]; r != nil { // none after a crash
		why = r.why
	}
	for _, b := range in.BlockDeviceMappings {
		volume := *b.Ebs.VolumeId
		if aws.ToBool(b.Ebs.DeleteOnTermination) {
			s.log(id, "delete "+volume, s.volumes.Drop(volume))
			continue
		}
		s.log(id, "detach "+volume, s.volumes.Edit(volume, func(v *volumeRow) {
			v.State, v.Attachments = types.VolumeStateAvailable, nil
			if aws.ToString(b.DeviceName) == aws.ToString(in.RootDeviceName) {
				v.Layers, v.LoginUser = layers, in.LoginUser
			}
		}))
	}
	delete(s.runners, id)
	s.log(id, "network interfaces", s.releaseInterfaces(in))
	s.log(id, "terminated", s.instances.Edit(id, func(in *instance) {
		in.setState(types.InstanceStateNameTerminated)
		in.setReason(why, s.now())
		in.setPublic("", "")
		in.Ended = aws.Time(s.now())
		in.Layers, in.Base = nil, ""
		in.PrivateIpAddress, in.PrivateDnsName, in.SubnetId, in.VpcId = nil, nil, nil, nil
		in.NetworkInterfaces, in.SecurityGroups, in.BlockDeviceMappings = nil, nil, nil
	}))
	delete(s.policies, id)
	s.refreshPolicies()
}

// lockDisk locks the instance's disk, so that its machine cannot be started and its disk
// cannot be captured until the returned function is called.
func (s *Service) lockDisk(id string) func() {
	disk := view(s, func(st *state) *sync.Mutex {
		if st.disks[id] == nil {
			st.disks[id] = &sync.Mutex{}
		}
		return st.disks[id]
	})
	disk.Lock()
	return disk.Unlock
}

// capture returns the current contents of volumes. The volumes of one instance are
// captured at one point in time: if the machine runs, they are copied while it is frozen.
// The instance reboot is shut down instead and starts again. copied reports whether
// contents were copied from a running machine.
func (s *Service) capture(ctx context.Context, volumes []string, reboot string) (held map[string]contents, copied bool, err error) {
	held = map[string]contents{}
	for left := slices.Clone(volumes); len(left) > 0; {
		var some map[string]contents
		var cloned bool
		if instance := s.holder(left[0]); instance == "" {
			some, err = s.captureDetached(ctx, left[0])
		} else {
			some, cloned, err = s.captureAttached(ctx, left, instance, instance == reboot)
			reboot = "" // one reboot is enough, even if another volume was attached meanwhile
		}
		if err != nil {
			return nil, false, err
		}
		maps.Copy(held, some)
		copied = copied || cloned
		left = slices.DeleteFunc(left, func(id string) bool { _, ok := held[id]; return ok })
	}
	return held, copied, nil
}

// captureDetached is capture for an unattached volume. It returns nothing if the volume
// has been attached meanwhile.
func (s *Service) captureDetached(ctx context.Context, id string) (map[string]contents, error) {
	defer s.lockDisk(id)()
	if s.holder(id) != "" {
		return nil, nil
	}
	held, err := s.freezeVolume(ctx, id)
	return map[string]contents{id: held}, err
}

// captureAttached is capture for those of the volumes that are attached to the instance.
func (s *Service) captureAttached(ctx context.Context, volumes []string, instance string, reboot bool) (held map[string]contents, copied bool, err error) {
	defer s.lockDisk(instance)()
	volumes = slices.DeleteFunc(slices.Clone(volumes), func(id string) bool { return s.holder(id) != instance })
	if len(volumes) == 0 {
		return nil, false, nil
	}
	m := view(s, func(st *state) machine.Machine {
		r := st.runners[instance]
		if r == nil || r.machine == nil {
			return nil
		}
		if reboot {
			r.aim(goalReboot, reasonUser)
		}
		return r.machine
	})
	if m != nil && reboot {
		within, cancel := context.WithTimeout(ctx, stopGrace)
		defer cancel()
		if err := m.Stop(within); err != nil {
			return nil, false, err
		}
	} else if m != nil {
		if held, err = s.cloneVolumes(ctx, volumes, instance, m); err == nil {
			return held, true, nil
		}
		if errors.Is(err, machine.ErrReleased) { // the copy is of no single point in time
			select {
			case <-m.Done():
			case <-ctx.Done():
			}
		}
		select {
		case <-m.Done(): // its disk is at rest
		default:
			return nil, false, err
		}
	}
	held, err = s.freezeVolumes(ctx, volumes, instance)
	return held, false, err
}

// freezeDisk turns the writable layer of a machine that is not running into a layer that
// images can share. The instance's row names the layer before the change, so that a crash
// loses nothing: see repair. The caller holds the disk's lock.
func (s *Service) freezeDisk(ctx context.Context, id string) ([]string, error) {
	in := s.instance(id)
	if in == nil {
		return nil, kindInstance.notFound(id)
	}
	upper := s.upper(id)
	if unchanged, err := upper.Empty(); err != nil || unchanged {
		return in.Layers, err
	}
	layer := s.opts.Images.NewID()
	layers := append([]string{layer}, in.Layers...)
	if err := s.editInstance(id, func(in *instance) { in.Freezing = layer }); err != nil {
		return nil, err
	}
	if err := s.opts.Images.Freeze(ctx, layer, upper); err != nil {
		return nil, errors.Join(err, s.editInstance(id, func(in *instance) { in.Freezing = "" }))
	}
	return layers, s.editInstance(id, func(in *instance) { in.Layers, in.Freezing = layers, "" })
}

// collect deletes unreferenced layers in the background. Some time later it runs again for
// layers that were too young at first.
func (s *state) collect() {
	again := !s.collecting
	s.collecting = true
	s.background(func(ctx context.Context, s *Service) {
		s.collectNow(ctx)
		if !again {
			return // the waiting collection will handle this one's layers
		}
		if (SystemClock{}).Sleep(ctx, collectAgain) != nil {
			return // the next Open collects
		}
		_ = s.update(func(st *state) error { st.collecting = false; return nil })
		s.collectNow(ctx)
	})
}

// collectAgain is longer than the time, two minutes, during which the image store considers a layer
// too young to delete. It is in host time, like the age of layers.
const collectAgain = 130 * time.Second

func (s *Service) collectNow(ctx context.Context) {
	inUse := func() (layers, bases []string) { return view(s, (*state).layers), view(s, (*state).bases) }
	if err := s.opts.Images.Collect(ctx, inUse); err != nil && ctx.Err() == nil {
		s.opts.Log.Error("collect layers", "error", err)
	}
}

// keep prevents the layers and bases that a task reads from being collected until release is
// called, even if the image and its snapshots are deleted.
func (s *state) keep(task string, what ...contents) { s.kept[task] = what }

// release undoes keep.
func (s *Service) release(task string) {
	_ = s.update(func(st *state) error { // cannot fail
		delete(st.kept, task)
		st.collect()
		return nil
	})
}

// layers returns the layers that are referenced.
func (s *state) layers() (inUse []string) {
	add := func(layers []string, freezing string) {
		inUse = append(inUse, layers...)
		if freezing != "" {
			inUse = append(inUse, freezing)
		}
	}
	for _, r := range s.snapshots.Rows {
		add(r.Layers, "")
	}
	for _, d := range s.recycled.Rows {
		if d.Snapshot != nil {
			add(d.Snapshot.Layers, "")
		}
	}
	for _, r := range s.volumes.Rows {
		add(r.Layers, r.Freezing)
	}
	for _, r := range s.instances.Rows {
		add(r.Layers, r.Freezing)
	}
	for _, task := range s.kept {
		for _, c := range task {
			add(c.layers, "")
		}
	}
	return inUse
}

// bases returns the bases that are referenced and whose layers have not been made yet.
func (s *state) bases() (inUse []string) {
	for _, r := range s.images.Rows {
		inUse = append(inUse, r.Base)
	}
	for _, r := range s.snapshots.Rows {
		inUse = append(inUse, r.Base)
	}
	for _, d := range s.recycled.Rows {
		if d.Image != nil {
			inUse = append(inUse, d.Image.Base)
		}
		if d.Snapshot != nil {
			inUse = append(inUse, d.Snapshot.Base)
		}
	}
	for _, r := range s.volumes.Rows {
		inUse = append(inUse, r.Base)
	}
	for _, r := range s.instances.Rows {
		inUse = append(inUse, r.Base)
	}
	for _, task := range s.kept {
		for _, c := range task {
			inUse = append(inUse, c.base)
		}
	}
	return inUse
}

// instance returns the row of an instance, or nil.
func (s *Service) instance(id string) *instance {
	return view(s, func(st *state) *instance { return st.instances.Rows[id] })
}

func (s *Service) editInstance(id string, change func(*instance)) error {
	return s.update(func(st *state) error { return st.instances.Edit(id, change) })
}

// confine returns path, which machines can write to, confined to the service's directory.
func (e *env) confine(path string) confined.Dir {
	name, err := filepath.Rel(e.opts.Dir, path)
	if err != nil {
		name = path // confined rejects it
	}
	return confined.Dir{Base: e.opts.Dir, Name: name}
}

// upper returns the writable layer of an instance's disk.
func (e *env) upper(instance string) confined.Dir {
	return e.confine(filepath.Join(e.machineDir(instance), "upper"))
}

func (e *env) machineDir(id string) string { return filepath.Join(e.opts.Dir, "machines", id) }
func (e *env) consoleFile(id string) string {
	return filepath.Join(e.opts.Dir, "console", id+".log")
}

// repair completes or undoes what a crash interrupted, and marks running instances as
// stopped.
func (s *Service) repair(ctx context.Context) error {
	err := s.update(func(st *state) error {
		return errors.Join(st.forgetEnded(), st.forgetDeregistered(), st.repairImports(), st.repairStoreTasks(), st.repairExports(), st.repairGroups(), st.repairInterfaces())
	})
	if err != nil {
		return err
	}
	for _, id := range view(s, func(st *state) []string { return st.instances.IDs() }) {
		if err := s.repairInstance(id); err != nil {
			return err
		}
	}
	for _, id := range view(s, func(st *state) []string { return st.volumes.IDs() }) {
		if err := s.repairVolume(ctx, id); err != nil {
			return err
		}
	}
	if err := s.update((*state).repairImages); err != nil {
		return err
	}
	if err := s.removeStrays(ctx); err != nil {
		return err
	}
	return s.update(func(st *state) error { st.collect(); return nil })
}

// repairGroups deletes the security groups of VPCs that do not exist.
func (s *state) repairGroups() error {
	for _, id := range s.groups.IDs() {
		g, _ := s.groups.Get(id)
		n, ok := s.networks.Get(*g.OwnerId + "." + g.Region)
		if !ok || n.Vpc == nil && n.vpc(*g.VpcId) == nil || n.Vpc != nil && *n.Vpc.VpcId != *g.VpcId {
			if err := s.groups.Drop(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) repairInstance(id string) error {
	if s.instance(id).state() == types.InstanceStateNameTerminated {
		return nil
	}
	err := s.update(func(st *state) error {
		return st.instances.Edit(id, func(in *instance) {
			if in.Freezing != "" {
				if _, err := s.opts.Images.Paths([]string{in.Freezing}); err == nil {
					in.Layers = append([]string{in.Freezing}, in.Layers...)
				}
				in.Freezing = ""
			}
			switch in.state() {
			case types.InstanceStateNamePending, types.InstanceStateNameRunning, types.InstanceStateNameStopping:
				in.setState(types.InstanceStateNameStopped)
				in.setReason(reasonDied, s.now())
				st.setAddress(in, false)
			}
		})
	})
	if err == nil && s.instance(id).state() == types.InstanceStateNameShuttingDown {
		s.terminated(id)
	}
	return err
}

// removeStrays deletes the directories of machines and volumes that do not exist.
func (s *Service) removeStrays(ctx context.Context) error {
	volumes, err := os.ReadDir(s.detachedDir(""))
	if err != nil {
		return err
	}
	for _, e := range volumes {
		if _, err := s.volume(e.Name()); err == nil {
			continue
		}
		if err := s.opts.Driver.Remove(ctx, s.detachedDir(e.Name())); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.opts.Dir, "machines"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if in := s.instance(e.Name()); in != nil && in.State.Name != types.InstanceStateNameTerminated {
			continue
		}
		if err := s.opts.Driver.Remove(ctx, s.machineDir(e.Name())); err != nil {
			return err
		}
	}
	return nil
}
