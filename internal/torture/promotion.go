//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// places are the regions in which channels are moved. The first is bake's home region.
var places = []string{"us-east-1", "eu-west-1"}

// promotion repeatedly moves a channel in all places with bake images promote, and makes a
// different call fail each time, always in the same way.
type promotion struct {
	mode     mode
	bake     string
	w        *world
	releases [2]map[string]string // images by region: the channel names the first release, and is moved to the second

	trials, moved int
	problems      []string
}

// String returns the result on one line.
func (p *promotion) String() string {
	return fmt.Sprintf("promote, %s: %d calls went wrong; %d moves were finished all the same, %d problems", p.mode.name, p.trials, p.moved, len(p.problems))
}

// promotions returns the modes to test, in each of which a call fails once: a service that
// always fails would also prevent checking the result.
func promotions() (all []mode) {
	for _, m := range modes() {
		if !m.cut && !m.resume && !m.forever {
			all = append(all, m)
		}
	}
	return all
}

// run tries all calls of a promotion, in a world in dir.
func (p *promotion) run(ctx context.Context, dir string) (err error) {
	if p.w, err = newWorld(ctx, dir); err != nil {
		return err
	}
	direct := httptest.NewServer(p.w.cloud.Handler()) // for this test's own calls
	defer func() {
		direct.Close()
		err = errors.Join(err, p.w.close(ctx))
	}()
	p.w.cloud.URL = direct.URL
	for _, region := range places {
		for n := range p.releases {
			if p.releases[n] == nil {
				p.releases[n] = map[string]string{}
			}
			if p.releases[n][region], err = p.image(ctx, region, fmt.Sprintf("web-%d", n)); err != nil {
				return err
			}
		}
	}
	for n := 1; ; n++ {
		struck, err := p.one(ctx, n)
		if err != nil || !struck {
			return err
		}
		p.trials++
	}
}

// image makes an image with an empty volume.
func (p *promotion) image(ctx context.Context, region, name string) (string, error) {
	c := p.w.cloud.EC2("default", region)
	volume, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(region + "a"), Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3})
	if err != nil {
		return "", err
	}
	snapshot, err := c.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: volume.VolumeId})
	if err != nil {
		return "", err
	}
	whole := ec2.NewSnapshotCompletedWaiter(c, func(o *ec2.SnapshotCompletedWaiterOptions) { o.MinDelay, o.MaxDelay = 10*time.Millisecond, time.Second })
	if err := whole.Wait(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snapshot.SnapshotId}}, time.Minute); err != nil {
		return "", err
	}
	out, err := c.RegisterImage(ctx, &ec2.RegisterImageInput{Name: &name, RootDeviceName: aws.String("/dev/xvda"), BlockDeviceMappings: []types.BlockDeviceMapping{{
		DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: snapshot.SnapshotId},
	}}})
	if err != nil {
		return "", err
	}
	return *out.ImageId, nil
}

// put makes a channel of an image name a release, in the way that bake writes it.
func (p *promotion) put(ctx context.Context, channel string, release map[string]string) error {
	for _, region := range places {
		id := release[region]
		c := ssm.NewFromConfig(p.w.cloud.Config("default", region))
		if _, err := c.PutParameter(ctx, &ssm.PutParameterInput{Name: &channel, Value: &id, Type: ssmtypes.ParameterTypeString, DataType: aws.String("aws:ec2:image")}); err != nil {
			return err
		}
		for { // until the image was validated
			if _, err := c.GetParameter(ctx, &ssm.GetParameterInput{Name: &channel}); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// names returns the number of the release that a channel names in each place, and whether
// the channel is locked.
func (p *promotion) names(ctx context.Context, channel string) (numbers []int, locked bool, err error) {
	for _, region := range places {
		c := ssm.NewFromConfig(p.w.cloud.Config("default", region))
		out, err := c.GetParameters(ctx, &ssm.GetParametersInput{Names: []string{channel, channel + ".lock"}})
		if err != nil {
			return nil, false, err
		}
		number := -1
		for _, found := range out.Parameters {
			if *found.Name != channel {
				locked = true
				continue
			}
			number = slices.IndexFunc(p.releases[:], func(r map[string]string) bool { return r[region] == *found.Value })
		}
		numbers = append(numbers, number)
	}
	return numbers, locked, nil
}

// one makes call n of a promotion fail, checks the state then and after a sweep, and
// promotes again. struck is false if there are fewer calls.
func (p *promotion) one(ctx context.Context, n int) (struck bool, err error) {
	image := fmt.Sprintf("web-%d", n)
	stable := "/bake/" + image + "/stable"
	if err := errors.Join(p.put(ctx, "/bake/"+image+"/candidate", p.releases[1]), p.put(ctx, stable, p.releases[0])); err != nil {
		return false, err
	}
	a := &attempt{trial: trial{mode: p.mode}, bake: p.bake, w: p.w, dir: p.w.dir}
	calls, action := 0, ""
	p.w.disturb(func(what string, w http.ResponseWriter, do func(http.ResponseWriter)) {
		a.mu.Lock()
		calls++
		strike := calls == n
		if strike {
			action = what
		}
		a.mu.Unlock()
		if strike {
			a.strike(w, do)
			return
		}
		do(w)
	})
	promote := []string{"images", "promote", image, "candidate", "stable", "-no-rules", "-regions", strings.Join(places, ",")}
	r, err := a.start(ctx, promote...)
	p.w.disturb(nil)
	if err != nil {
		return false, err
	}
	say := func(format string, args ...any) {
		p.problems = append(p.problems, fmt.Sprintf("call %d (%s), exit %d: %s\n%s", n, action, r.exit, fmt.Sprintf(format, args...), a.out.said))
	}
	struck = calls >= n
	if !struck && r.exit != 0 {
		return false, fmt.Errorf("the undisturbed promotion failed:\n%s", r.text)
	}
	numbers, _, err := p.names(ctx, stable)
	if err != nil {
		return struck, err
	}
	if wrong := misreported(r, numbers); wrong != "" {
		say("%s %v", wrong, numbers)
	}
	if r.exit == 0 {
		p.moved++
	}
	for _, then := range [][]string{{"sweep"}, promote} {
		if r, err = a.start(ctx, then...); err != nil {
			return struck, err
		}
		if r.exit != 0 {
			say("then bake %s failed", then[0])
		}
	}
	numbers, locked, err := p.names(ctx, stable)
	if locked || slices.ContainsFunc(numbers, func(n int) bool { return n != 1 }) {
		say("in the end the channel names %v; locked: %t", numbers, locked)
	}
	p.problems = append(p.problems, a.out.problems...)
	return struck, err
}

// misreported returns what a promotion says wrongly about a channel that names these releases, or "".
func misreported(r report, numbers []int) string {
	split := slices.Contains(numbers, 0) && slices.Contains(numbers, 1)
	switch {
	case slices.Contains(numbers, -1):
		return "the channel points to something that is not a release:"
	case r.exit == 0 && slices.Contains(numbers, 0):
		return "it says that the channel has moved, and it names"
	case r.exit > 0 && split && !strings.Contains(r.text, "may name different images"):
		return "without a word the channel names"
	case r.exit > 0 && !split && numbers[0] == 1 && strings.Contains(r.text, "stays as it was"):
		return "it says that the channel stays as it was, and it names"
	}
	return ""
}

// promote runs the promotions in parallel.
func (t *torture) promote(ctx context.Context) error {
	if t.trials > 0 { // only some are drawn: two of the modes are in the tests of this package
		return nil
	}
	var (
		lanes sync.WaitGroup
		mu    sync.Mutex
		all   error
	)
	for i, m := range promotions() {
		if !t.match.MatchString("promote/" + m.name) {
			continue
		}
		lanes.Go(func() {
			dir := filepath.Join(t.dir, "promote"+strconv.Itoa(i))
			p := &promotion{mode: m, bake: t.bake}
			err := os.Mkdir(dir, 0o700)
			if err == nil {
				err = p.run(ctx, dir)
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(p)
			for _, text := range p.problems {
				fmt.Println("  " + text)
				err = errors.Join(err, errGoals)
			}
			all = errors.Join(all, err)
		})
	}
	lanes.Wait()
	return all
}
