package cloud_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/confined"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

// withData launches an instance whose second volume holds the file data.
func withData(t *testing.T, s *cloudtest.Server, client *ec2.Client) (instance, root, data string) {
	t.Helper()
	in := run(t, client, ec2.RunInstancesInput{BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1)}}}})
	for _, b := range in.BlockDeviceMappings {
		if *b.DeviceName == "/dev/sdf" {
			data = *b.Ebs.VolumeId
		} else {
			root = *b.Ebs.VolumeId
		}
	}
	content := filepath.Join(s.Driver.Specs()[0].Dir, machine.VolumesDir, "xvdf", machine.VolumeContent)
	if err := os.WriteFile(filepath.Join(content, "data"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	return *in.InstanceId, root, data
}

// snapshotOf starts to take a snapshot.
func snapshotOf(t *testing.T, client *ec2.Client, volume string) string {
	t.Helper()
	return *got[*ec2.CreateSnapshotOutput](t)(client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume})).SnapshotId
}

// ended waits until a snapshot is no longer pending, and returns it.
func ended(t *testing.T, client *ec2.Client, id string) (snap types.Snapshot) {
	t.Helper()
	eventually(t, id+" ended", func() bool {
		snap = got[*ec2.DescribeSnapshotsOutput](t)(client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})).Snapshots[0]
		return snap.State != types.SnapshotStatePending
	})
	return snap
}

// files returns the files in all layers except those of bases.
func files(t *testing.T, s *cloudtest.Server) (names []string) {
	t.Helper()
	layers, err := s.Images.Layers()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := s.Images.Paths(layers)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		entries, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// TestSnapshotOfMoving checks that a volume which is being detached or attached while a
// snapshot of it is taken is captured where it then is.
func TestSnapshotOfMoving(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	instance, root, data := withData(t, s, client)
	cloning, goOn := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() {
		close(cloning)
		<-goOn
	})
	s.Images.Cloning = func() error { first(); return nil }

	// The instance's lock is held while the others queue, one after the other.
	var all sync.WaitGroup
	all.Go(func() { snapshotOf(t, client, root) })
	<-cloning
	got[*ec2.DetachVolumeOutput](t)(client.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &data}))
	time.Sleep(50 * time.Millisecond)
	all.Go(func() {
		if snap := ended(t, client, snapshotOf(t, client, data)); snap.State != types.SnapshotStateCompleted {
			t.Errorf("of a volume that is detached: %s, %s", snap.State, aws.ToString(snap.StateMessage))
		}
	})
	time.Sleep(50 * time.Millisecond)
	close(goOn)
	all.Wait()
	if names := files(t, s); !slices.Equal(names, []string{"data"}) {
		t.Errorf("the layers hold %v", names)
	}

	eventually(t, data+" available", func() bool {
		return got[*ec2.DescribeVolumesOutput](t)(client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{data}})).Volumes[0].State == types.VolumeStateAvailable
	})
	other := run(t, client, ec2.RunInstancesInput{})
	for _, to := range []string{*other.InstanceId, instance} {
		got[*ec2.AttachVolumeOutput](t)(client.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &data, InstanceId: &to, Device: aws.String("/dev/sdg")}))
		snap := ended(t, client, snapshotOf(t, client, data))
		if snap.State != types.SnapshotStateCompleted || aws.ToInt64(snap.FullSnapshotSizeInBytes) == 0 {
			t.Errorf("of a volume that is attached: %s, %s, %d bytes", snap.State, aws.ToString(snap.StateMessage), aws.ToInt64(snap.FullSnapshotSizeInBytes))
		}
		eventually(t, data+" attached", func() bool {
			v := got[*ec2.DescribeVolumesOutput](t)(client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{data}})).Volumes[0]
			return v.Attachments[0].State == types.VolumeAttachmentStateAttached
		})
		got[*ec2.DetachVolumeOutput](t)(client.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &data}))
		eventually(t, data+" available", func() bool {
			return got[*ec2.DescribeVolumesOutput](t)(client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{data}})).Volumes[0].State == types.VolumeStateAvailable
		})
	}
}

// TestEndDuringCopy checks that a copy of a running machine's disk is discarded if the
// machine is stopped meanwhile, and that the disk is then captured at rest. The same holds
// for a machine that ends by itself.
func TestEndDuringCopy(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *cloudtest.Server, *ec2.Client, string){
		"stop": func(t *testing.T, _ *cloudtest.Server, client *ec2.Client, id string) {
			got[*ec2.StopInstancesOutput](t)(client.StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{id}}))
		},
		"reboot": func(t *testing.T, _ *cloudtest.Server, client *ec2.Client, id string) {
			got[*ec2.RebootInstancesOutput](t)(client.RebootInstances(t.Context(), &ec2.RebootInstancesInput{InstanceIds: []string{id}}))
		},
		"crash": func(t *testing.T, s *cloudtest.Server, _ *ec2.Client, id string) {
			m := s.Driver.Machine(id)
			if err := writeDisk(s, id, "last"); err != nil {
				t.Error(err)
			}
			m.End(machine.Exit{Reason: machine.Crashed})
		},
	} {
		t.Run(name, func(t *testing.T) {
			stopping := make(chan struct{})
			begun := sync.OnceFunc(func() { close(stopping) })
			driver := &machinetest.Driver{Stopping: func(spec machine.Spec) {
				begun()
				time.Sleep(100 * time.Millisecond) // the copy is finished long before
				if err := os.WriteFile(filepath.Join(spec.Dir, "upper", "last"), nil, 0o600); err != nil {
					t.Error(err)
				}
			}}
			s := cloudtest.Start(t, cloud.Options{Driver: driver})
			client := s.EC2("default", "us-east-1")
			in := run(t, client, ec2.RunInstancesInput{})
			id := *in.InstanceId
			if err := writeDisk(s, id, "first"); err != nil {
				t.Fatal(err)
			}
			var copies atomic.Int32
			s.Images.Cloning = func() error {
				if copies.Add(1) == 1 {
					end(t, s, client, id)
					if name != "crash" {
						<-stopping
					}
				}
				return nil
			}
			snap := ended(t, client, snapshotOf(t, client, *in.BlockDeviceMappings[0].Ebs.VolumeId))
			if snap.State != types.SnapshotStateCompleted || copies.Load() != 1 {
				t.Fatalf("%s, %s, after %d copies", snap.State, aws.ToString(snap.StateMessage), copies.Load())
			}
			// The disk itself has become the layer, so it is now one of the instance's
			// layers.
			next := run(t, client, ec2.RunInstancesInput{ImageId: registered(t, client, snap)})
			if !holds(s, *next.InstanceId, "last") {
				t.Error("the snapshot lacks what the machine wrote before it ended")
			}
		})
	}
}

// registered registers an image from a snapshot.
func registered(t *testing.T, client *ec2.Client, snap types.Snapshot) *string {
	t.Helper()
	return got[*ec2.RegisterImageOutput](t)(client.RegisterImage(t.Context(), &ec2.RegisterImageInput{
		Name: aws.String("of-" + *snap.SnapshotId), Architecture: types.ArchitectureValuesX8664, RootDeviceName: aws.String("/dev/xvda"), VirtualizationType: aws.String("hvm"),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: snap.SnapshotId}}},
	})).ImageId
}

// guarding records which layers are made or flushed while collection is not held off, and
// which of them are unreferenced when it no longer is.
type guarding struct {
	*cloudtest.Images
	held    atomic.Int32
	inUse   atomic.Pointer[func() (layers, bases []string)]
	mu      sync.Mutex
	made    []string
	wrong   []string
	holding int
}

func (g *guarding) Collect(_ context.Context, inUse func() (layers, bases []string)) error {
	g.inUse.Store(&inUse)
	return nil
}

func (g *guarding) Clone(ctx context.Context, dir confined.Dir) (string, error) {
	id, err := g.Images.Clone(ctx, dir)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made = append(g.made, id)
	if g.held.Load() == 0 {
		g.wrong = append(g.wrong, "clone")
	}
	return id, err
}

func (g *guarding) Flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held.Load() == 0 {
		g.wrong = append(g.wrong, "flush")
	}
	return g.Images.Flush()
}

func (g *guarding) Hold(context.Context) (release func(), err error) {
	g.held.Add(1)
	return func() {
		used, _ := (*g.inUse.Load())()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.holding++
		for _, id := range g.made {
			if !slices.Contains(used, id) {
				g.wrong = append(g.wrong, id)
			}
		}
		g.held.Add(-1)
	}, nil
}

// TestCopiesAreKept checks that no layers are collected from before a copy until a
// snapshot refers to it.
func TestCopiesAreKept(t *testing.T) {
	g := &guarding{Images: cloudtest.NewImages(t.TempDir())}
	s := cloudtest.Start(t, cloud.Options{Images: g})
	client := s.EC2("default", "us-east-1")
	instance, _, _ := withData(t, s, client)
	taken := got[*ec2.CreateSnapshotsOutput](t)(client.CreateSnapshots(t.Context(), &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: &instance}})).Snapshots
	for _, snap := range taken {
		ended(t, client, *snap.SnapshotId)
	}
	eventually(t, "the hold to end", func() bool { return g.held.Load() == 0 })
	if len(g.made) != 2 || g.holding != 1 || len(g.wrong) > 0 {
		t.Errorf("made %v, held %d times; not kept: %v", g.made, g.holding, g.wrong)
	}
}

// TestFlushBeforeRow checks that a snapshot is complete only after its layers are on disk.
// After a crash, a snapshot without its layers is gone; it fails if the layers cannot be
// flushed.
func TestFlushBeforeRow(t *testing.T) {
	dir := t.TempDir()
	s := cloudtest.Start(t, cloud.Options{Dir: dir})
	client := s.EC2("default", "us-east-1")
	in := run(t, client, ec2.RunInstancesInput{})
	if err := writeDisk(s, *in.InstanceId, "file"); err != nil {
		t.Fatal(err)
	}
	root := *in.BlockDeviceMappings[0].Ebs.VolumeId
	crashed := filepath.Join(t.TempDir(), "crashed")
	var order []string
	s.Images.Cloning = func() error { order = append(order, "clone"); return nil }
	s.Images.Flushing = func() error {
		order = append(order, "flush")
		return os.CopyFS(crashed, os.DirFS(dir))
	}
	id := snapshotOf(t, client, root)
	if snap := ended(t, client, id); snap.State != types.SnapshotStateCompleted {
		t.Fatalf("%s, %s", snap.State, aws.ToString(snap.StateMessage))
	}
	if !slices.Equal(order, []string{"clone", "flush"}) {
		t.Errorf("the order is %v", order)
	}
	after := cloudtest.Start(t, cloud.Options{Dir: crashed})
	left := got[*ec2.DescribeSnapshotsOutput](t)(after.EC2("default", "us-east-1").DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})).Snapshots
	if len(left) > 0 {
		t.Errorf("after a crash before the layers were on the disk: %s is %s", *left[0].SnapshotId, left[0].State)
	}

	s.Images.Flushing = func() error { return errors.New("no room") }
	if snap := ended(t, client, snapshotOf(t, client, root)); snap.State != types.SnapshotStateError || !strings.Contains(*snap.StateMessage, "no room") {
		t.Errorf("on a full disk: %s, %s", snap.State, aws.ToString(snap.StateMessage))
	}
	img := *got[*ec2.CreateImageOutput](t)(client.CreateImage(t.Context(), &ec2.CreateImageInput{InstanceId: in.InstanceId, Name: aws.String("none"), NoReboot: aws.Bool(true)})).ImageId
	eventually(t, "the image to fail", func() bool {
		return got[*ec2.DescribeImagesOutput](t)(client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{img}})).Images[0].State == types.ImageStateFailed
	})
}

// TestAnswerOfFailed checks that an action whose snapshots fail later answers at once.
func TestAnswerOfFailed(t *testing.T) {
	s := rehearse(t, cloud.Options{Delays: cloud.Delays{Snapshot: time.Hour}},
		cloud.Fault{Action: "CreateSnapshot", Effect: "fail"}, cloud.Fault{Action: "CreateSnapshots", Effect: "fail"}, cloud.Fault{Action: "CreateImage", Effect: "fail"})
	client := s.EC2("default", "us-east-1")
	in := run(t, client, ec2.RunInstancesInput{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, one := client.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: in.BlockDeviceMappings[0].Ebs.VolumeId})
	_, some := client.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: in.InstanceId}})
	_, image := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: in.InstanceId, Name: aws.String("none"), NoReboot: aws.Bool(true)})
	if err := errors.Join(one, some, image); err != nil {
		t.Error(err)
	}
}

// TestPatience checks that an action answers only after the copy is made, unless its
// client disconnects.
func TestPatience(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	in := run(t, client, ec2.RunInstancesInput{})
	copying, goOn := make(chan struct{}), make(chan struct{})
	s.Images.Cloning = func() error { copying <- struct{}{}; <-goOn; return nil }
	answer := func(ctx context.Context) <-chan error {
		answered := make(chan error, 1)
		go func() {
			_, err := client.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: in.BlockDeviceMappings[0].Ebs.VolumeId})
			answered <- err
		}()
		<-copying
		return answered
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := answer(ctx)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("to a client that has gone: %v", err)
	}
	goOn <- struct{}{}
	waits := answer(t.Context())
	for range 20 { // meanwhile the cloud answers others
		if _, err := client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-waits:
		t.Errorf("before the copy was there: %v", err)
	default:
	}
	goOn <- struct{}{}
	if err := <-waits; err != nil {
		t.Errorf("when the copy was there: %v", err)
	}
}
