package launch

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	gossh "golang.org/x/crypto/ssh"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/communicator"
	"bake/communicator/ssh"
	"bake/internal/delay"
	"bake/step"
)

// Connect waits until login to the machine is possible, and returns the connection.
func (l *Launcher) Connect(ctx context.Context, instance types.Instance, key Key, groups Groups) (communicator.Communicator, error) {
	a := &address{l: l, turn: make(chan struct{}, 1), instance: instance, groups: groups, seen: time.Now()}
	if l.Communicator == ssh.WinRM {
		return l.connectWinRM(ctx, a, key)
	}
	build := ctx
	return step.Do(ctx, l.Scope, "connect to the machine", func(ctx context.Context) (communicator.Communicator, error) {
		t := ssh.Target{Addr: a.lookUp, HostKeys: l.consoleKeys(aws.ToString(instance.InstanceId)), Dial: a.dial, User: a.loginUser}
		if key.signer != nil {
			t.Signers = []gossh.Signer{key.signer}
		}
		if l.SSHInterface == SessionManager && l.Communicator == ssh.SSH {
			through, err := l.sessions(build, aws.ToString(instance.InstanceId))
			if err != nil {
				return nil, err
			}
			t.Addr, t.Dial, t.Through = through.addr, through.dial, through.name
			if l.sendsPublicKey() {
				t.Prepare = through.sendPublicKey
			}
		}
		return ssh.Connect(ctx, l.Scope, &l.Options.Options, t)
	})
}

// address determines the address of an instance.
type address struct {
	l *Launcher

	turn     chan struct{} // holds a token while a goroutine uses the fields below
	instance types.Instance
	groups   Groups
	seen     time.Time // when instance was described
}

// stale is the maximum age of a description from which an address is read: an instance that
// was stopped and started has a new address.
const stale = 10 * time.Second

func (a *address) lookUp(ctx context.Context) (string, int, error) {
	if host := a.l.fixedHost(); host != "" {
		return host, 0, nil
	}
	release, err := a.take(ctx)
	if err != nil {
		return "", 0, err
	}
	defer release()
	if time.Since(a.seen) > stale {
		if err := a.describe(ctx); err != nil {
			return "", 0, err
		}
	}
	host := reach(a.instance, a.l.SSHInterface)
	// A public address may appear a little later than the state.
	for try := 0; host == "" && try < 3; try++ {
		if try > 0 {
			if err := delay.For(ctx, time.Second); err != nil {
				return "", 0, err
			}
		}
		if err := a.describe(ctx); err != nil {
			return "", 0, err
		}
		host = reach(a.instance, a.l.SSHInterface)
	}
	if private := aws.ToString(a.instance.PrivateIpAddress); host == "" && a.l.SSHInterface == "" && private != "" {
		if err := a.l.openForPrivate(ctx, a.groups); err != nil {
			return "", 0, err
		}
		a.groups.public = false
		host = private
	}
	if host == "" && a.l.SSHInterface != "" {
		return "", 0, a.l.Src.Errorf(&a.l.SSHInterface, "No such address", "Instance %s has no %s.", aws.ToString(a.instance.InstanceId), a.l.SSHInterface)
	}
	if host == "" {
		return "", 0, ssh.ErrNotYet
	}
	return host, 0, nil
}

// take waits for exclusive use of the instance's description.
func (a *address) take(ctx context.Context) (release func(), err error) {
	select {
	case a.turn <- struct{}{}:
		return func() { <-a.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// dial connects to addr. If addr is the machine's private address in a cloud whose networks
// cannot be reached from here, it connects through the cloud, because another machine may
// have that address here.
func (a *address) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	cloud := a.l.Session.Cloud
	if cloud.DialInstance != nil {
		host, text, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		release, err := a.take(ctx)
		if err != nil {
			return nil, err
		}
		id, inside := aws.ToString(a.instance.InstanceId), host != "" && (host == aws.ToString(a.instance.PrivateIpAddress) || host == aws.ToString(a.instance.PrivateDnsName))
		release()
		if inside {
			return cloud.DialInstance(ctx, id, port)
		}
	}
	if cloud.Dial != nil {
		return cloud.Dial(ctx, network, addr)
	}
	return (&net.Dialer{KeepAlive: 5 * time.Second}).DialContext(ctx, network, addr)
}

// loginUser returns the login user of the source image, or "" if it is unknown.
func (a *address) loginUser(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := access.Call(ctx, a.l.client().DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{aws.ToString(a.instance.ImageId)}})
	if err != nil || len(out.Images) == 0 {
		return "" // it is only a hint
	}
	return LoginUser(out.Images[0])
}

func (a *address) describe(ctx context.Context) error {
	out, err := access.Call(ctx, a.l.client().DescribeInstances, &ec2.DescribeInstancesInput{
		InstanceIds: []string{aws.ToString(a.instance.InstanceId)},
	})
	if err != nil {
		return err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			a.instance, a.seen = i, time.Now()
		}
	}
	switch s := a.instance.State; {
	case s == nil:
	case s.Name == types.InstanceStateNameShuttingDown, s.Name == types.InstanceStateNameTerminated:
		return fmt.Errorf("instance %s is %s: %s", aws.ToString(a.instance.InstanceId), s.Name, reason(a.instance))
	}
	return nil
}

// reach returns the address of an interface of an instance, or "".
func reach(i types.Instance, on Interface) string {
	switch on {
	case PublicIP:
		return aws.ToString(i.PublicIpAddress)
	case PrivateIP:
		return aws.ToString(i.PrivateIpAddress)
	case PublicDNS:
		return aws.ToString(i.PublicDnsName)
	case PrivateDNS:
		return aws.ToString(i.PrivateDnsName)
	case IPv6:
		for _, nic := range i.NetworkInterfaces {
			for _, ip := range nic.Ipv6Addresses {
				return aws.ToString(ip.Ipv6Address)
			}
		}
		return aws.ToString(i.Ipv6Address)
	}
	if aws.ToString(i.VpcId) == "" {
		return aws.ToString(i.PublicDnsName)
	}
	return aws.ToString(i.PublicIpAddress)
}

// consoleKeys returns a function that reads the host keys that cloud-init writes to the
// console.
func (l *Launcher) consoleKeys(id string) func(context.Context) ([]gossh.PublicKey, error) {
	latest := true // only some instance types have it
	return func(ctx context.Context) ([]gossh.PublicKey, error) {
		out, err := access.Call(ctx, l.client().GetConsoleOutput, &ec2.GetConsoleOutputInput{InstanceId: &id, Latest: &latest})
		if latest && access.Is(err, "UnsupportedOperation", "InvalidParameterCombination", "InvalidParameterValue", "UnsupportedInstanceAttribute") {
			latest = false
			out, err = access.Call(ctx, l.client().GetConsoleOutput, &ec2.GetConsoleOutputInput{InstanceId: &id})
		}
		if err != nil {
			return nil, err
		}
		text, err := base64.StdEncoding.DecodeString(aws.ToString(out.Output))
		if err != nil {
			return nil, fmt.Errorf("the console output of %s is not base64: %w", id, err)
		}
		return ssh.ConsoleHostKeys(string(text)), nil
	}
}

// ClearKey removes the temporary key from the authorized_keys of the login user and of
// root, so that the image does not contain it. It first waits until nothing adds the key
// again.
func (l *Launcher) ClearKey(ctx context.Context, m builder.Machine, key Key) error {
	if !l.SSHClearAuthorizedKeys || key.signer == nil || l.Communicator != ssh.SSH {
		return nil
	}
	if l.AwaitFirstBoot != nil {
		if err := l.AwaitFirstBoot(ctx, m); err != nil {
			return err
		}
	}
	return step.Run(ctx, l.Scope, "remove the temporary key from authorized_keys", func(ctx context.Context) error {
		// A key pair's name is the comment of its key.
		pattern := strings.NewReplacer(`\`, `\\`, `/`, `\/`, `.`, `\.`, `*`, `\*`, `[`, `\[`, `'`, `'\''`).Replace(key.Name)
		edit := func(sudo, file string) string {
			return fmt.Sprintf("if %[1]stest -f %[2]s; then %[1]ssed -i.bak -e '/ %[3]s$/d' %[2]s && %[1]srm -f %[2]s.bak; fi", sudo, file, pattern)
		}
		for _, line := range []string{
			edit("", "~/.ssh/authorized_keys"),
			"if test $(id -u) = 0; then " + edit("", "/root/.ssh/authorized_keys") + "; elif command -v sudo >/dev/null; then " + edit("sudo -n ", "/root/.ssh/authorized_keys") + "; fi",
		} {
			stderr := communicator.Head{Max: 4 << 10}
			status, err := m.Run(ctx, communicator.Command{Line: line, Stderr: &stderr})
			if err != nil {
				return err
			}
			if status.Code != 0 {
				return fmt.Errorf("removing the temporary key from authorized_keys failed with status %d: %s", status.Code, strings.TrimSpace(stderr.String()))
			}
		}
		return nil
	})
}
