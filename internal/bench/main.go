//go:build linux

// Bench measures the figures in docs/performance.md: it runs the real program on the
// embedded cloud and prints one line for each figure, with its goal.
//
//	go run ./internal/bench -bake bin/bake -dir /var/tmp/bench
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"
)

func main() {
	bake := flag.String("bake", "bin/bake", "the program to measure")
	dir := flag.String("dir", "", "where big files go; empty means a temporary directory")
	only := flag.String("only", "", "run only the measurements whose name matches this expression")
	runs := flag.Int("runs", 3, "how often each transfer is measured")
	big := flag.Int64("big", 512, "the size of the big file that is transferred, in MB")
	loads := flag.String("loads", "", "transfer only what matches this expression: big, many, sparse; with up or down before it and a space between")
	flag.Parse()
	b, err := newBench(*bake, *dir, *only)
	if err == nil {
		b.wanted, err = regexp.Compile(*loads)
	}
	if err == nil {
		b.runs, b.big = *runs, *big
		err = b.run(context.Background())
		b.close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	bake, dir string
	only      *regexp.Regexp
	ownDir    bool
	runs      int            // of each transfer
	big       int64          // file, in MB
	wanted    *regexp.Regexp // transfers

	server *exec.Cmd // bake cloud up
	env    []string  // directs a client to it
	client *ec2.Client
	key    ssh.Signer
	keyPEM string // path
}

func newBench(bake, dir, only string) (*bench, error) {
	bake, err := filepath.Abs(bake)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	b := &bench{bake: bake, dir: dir, only: re}
	if dir == "" {
		b.ownDir = true
		b.dir, err = os.MkdirTemp("", "bake-bench")
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	return b, err
}

func (b *bench) close() {
	b.stopCloud()
	if b.ownDir {
		os.RemoveAll(b.dir)
	}
}

func (b *bench) run(ctx context.Context) error {
	for _, m := range []struct {
		name string
		fn   func(context.Context) error
	}{
		{"size", b.size},
		{"validate", b.validate},
		{"main", b.mainJob},
		{"cache", b.cache},
		{"launch", b.launch},
		{"image", b.image},
		{"upload", b.upload},
		{"checks", b.checks},
		{"transfers-near", func(ctx context.Context) error { return b.transfers(ctx, 0) }},
		{"transfers-20ms", func(ctx context.Context) error { return b.transfers(ctx, 20*time.Millisecond) }},
		{"transfers-80ms", func(ctx context.Context) error { return b.transfers(ctx, 80*time.Millisecond) }},
		{"bakes", b.bakes},
	} {
		if !b.only.MatchString(m.name) {
			continue
		}
		if err := m.fn(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

func report(what, figure, goal string) {
	fmt.Printf("%-52s %-26s %s\n", what, figure, goal)
}

func (b *bench) size(context.Context) error {
	st, err := os.Stat(b.bake)
	if err != nil {
		return err
	}
	report("binary, stripped", fmt.Sprintf("%.1f MB", float64(st.Size())/1e6), "goal: at most 45 MB")
	return nil
}

func (b *bench) validate(context.Context) error {
	var wall []time.Duration
	var rss int64
	for range 10 {
		start := time.Now()
		cmd := exec.Command(b.bake, "validate", "examples/webserver")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		wall = append(wall, time.Since(start))
		rss = max(rss, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	report("bake validate examples/webserver, median of 10", median(wall).Round(time.Millisecond).String(), "goal: at most 50 ms")
	report("  its largest resident set", fmt.Sprintf("%d MB", rss/1024), "goal: at most 64 MB")
	return nil
}

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

// mainJob bakes the web server twice and reports the second, warm one.
func (b *bench) mainJob(context.Context) error {
	var events []byte
	var wall time.Duration
	for range 2 {
		start := time.Now()
		out, err := b.command("build", "-local", "-json", "-color=false", "examples/webserver").Output()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		wall, events = time.Since(start), out
	}
	var first, last, waits time.Time
	var waited time.Duration
	for line := range bytes.Lines(events) {
		var e struct {
			Time time.Time `json:"time"`
			Kind string    `json:"kind"`
			Step string    `json:"step"`
		}
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		switch wait := strings.HasSuffix(e.Step, "> wait for cloud-init"); {
		case e.Kind == "step-started" && wait:
			waits = e.Time
		case e.Kind == "step-finished" && wait:
			waited = e.Time.Sub(waits)
		case e.Kind == "output" || e.Kind == "error-output":
			if first.IsZero() {
				first = e.Time
			}
			last = e.Time
		}
	}
	apt := last.Sub(first)
	report("main job, warm: examples/webserver", round(wall), "")
	report("  of it between apt's first and last line", round(apt), fmt.Sprintf("%.0f%% of the wall time", 100*apt.Seconds()/wall.Seconds()))
	report("  of it waiting for cloud-init", round(waited), "")
	report("  the rest: launch, image, copies, teardown", round(wall-apt-waited), "goal: at most 1 s")
	return nil
}

func round(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

// launch measures the time from RunInstances to the first completed command over SSH, and
// its parts: until the SSH server answers, until the user is logged in, and until the
// command has ended.
func (b *bench) launch(ctx context.Context) error {
	if err := b.startCloud(ctx); err != nil {
		return err
	}
	var all []launched
	for i := range 8 {
		in, took, err := b.runMachine(ctx)
		if err != nil {
			return err
		}
		if i > 0 { // the first may have had to make the base
			all = append(all, took)
		}
		if err := b.terminate(ctx, in); err != nil {
			return err
		}
	}
	of := func(part func(launched) time.Duration) string {
		var times []time.Duration
		for _, l := range all {
			times = append(times, part(l))
		}
		return median(times).Round(time.Millisecond).String()
	}
	report("RunInstances to first completed SSH command, median of 7", of(func(l launched) time.Duration { return l.command }), "goal: at most 0.3 s")
	report("  until the SSH server answers", of(func(l launched) time.Duration { return l.answer }), "")
	report("  then until it has let the user in", of(func(l launched) time.Duration { return l.login - l.answer }), "")
	report("  then until the command has ended", of(func(l launched) time.Duration { return l.command - l.login }), "")
	return nil
}

// image measures CreateImage of a stopped instance until the image is available.
func (b *bench) image(ctx context.Context) error {
	if err := b.startCloud(ctx); err != nil {
		return err
	}
	in, err := b.runInstance(ctx)
	if err != nil {
		return err
	}
	defer b.terminate(ctx, in)
	id := aws.ToString(in.InstanceId)
	if _, err := b.client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}}); err != nil {
		return err
	}
	if err := b.until(ctx, id, types.InstanceStateNameStopped); err != nil {
		return err
	}
	var times []time.Duration
	for i := range 5 {
		start := time.Now()
		img, err := b.client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String(fmt.Sprintf("bench-%d-%d", start.Unix(), i))})
		if err != nil {
			return err
		}
		for {
			out, err := b.client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*img.ImageId}})
			if err != nil {
				return err
			}
			if out.Images[0].State == types.ImageStateAvailable {
				break
			}
		}
		times = append(times, time.Since(start))
		if _, err := b.client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId}); err != nil {
			return err
		}
	}
	report("CreateImage of a stopped instance until available, median of 5", median(times).Round(100*time.Microsecond).String(), "goal: at most 50 ms")
	return nil
}

// upload compares the file provisioner with OpenSSH's scp to the same machine.
func (b *bench) upload(ctx context.Context) error {
	if err := b.startCloud(ctx); err != nil {
		return err
	}
	in, err := b.runInstance(ctx)
	if err != nil {
		return err
	}
	defer b.terminate(ctx, in)
	host := aws.ToString(in.PublicIpAddress)

	big := filepath.Join(b.dir, "big")
	if err := randomFile(big, 512<<20); err != nil {
		return err
	}
	many := filepath.Join(b.dir, "many")
	if err := os.MkdirAll(many, 0o755); err != nil {
		return err
	}
	for i := range 2000 {
		if err := randomFile(filepath.Join(many, fmt.Sprintf("f%04d", i)), 4096); err != nil {
			return err
		}
	}
	for _, c := range []struct{ what, path string }{{"upload of 512 MB", big}, {"upload of 2,000 files of 4 KB", many}} {
		var ours, theirs []time.Duration
		for range 3 {
			d, err := b.fileProvisioner(host, c.path)
			if err != nil {
				return err
			}
			ours = append(ours, d)
			start := time.Now()
			scp := exec.Command("scp", "-q", "-r", "-i", b.keyPEM, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", c.path, "admin@"+host+":/var/tmp/")
			if out, err := scp.CombinedOutput(); err != nil {
				return fmt.Errorf("scp: %w: %s", err, out)
			}
			theirs = append(theirs, time.Since(start))
		}
		o, t := median(ours), median(theirs)
		report(c.what+", bake / scp, medians of 3", fmt.Sprintf("%s / %s = %.2f", round(o), round(t), o.Seconds()/t.Seconds()), "goal: at most 1")
	}
	return nil
}

// fileProvisioner returns the wall time of a whole bake with the null builder that uploads
// path. Like scp's time, it includes connecting.
func (b *bench) fileProvisioner(host, path string) (time.Duration, error) {
	template := filepath.Join(b.dir, "upload.pkr.hcl")
	text := fmt.Sprintf(`
source "null" "machine" {
  ssh_host             = %q
  ssh_username         = "admin"
  ssh_private_key_file = %q
}
build {
  sources = ["null.machine"]
  provisioner "file" {
    source      = %q
    destination = "/var/tmp/"
  }
}
`, host, b.keyPEM, path)
	if err := os.WriteFile(template, []byte(text), 0o644); err != nil {
		return 0, err
	}
	start := time.Now()
	if out, err := b.command("build", "-color=false", template).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("bake build: %w: %s", err, out)
	}
	return time.Since(start), nil
}

func randomFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		return err
	}
	return f.Close()
}

func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.Command(b.bake, args...)
	cmd.Env = append(os.Environ(), b.env...)
	return cmd
}

// startCloud serves the embedded cloud, once, and imports a key and opens port 22.
func (b *bench) startCloud(ctx context.Context) error {
	if b.server != nil {
		return nil
	}
	b.server = exec.Command(b.bake, "cloud", "up")
	b.server.Stderr = os.Stderr
	out, err := b.server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.server.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for len(b.env) < 2 && lines.Scan() {
		if kv, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "export "); ok {
			k, v, _ := strings.Cut(kv, "=")
			b.env = append(b.env, k+"="+strings.Trim(v, `"'`))
			os.Setenv(k, strings.Trim(v, `"'`))
		}
	}
	if len(b.env) < 2 {
		return errors.New("bake cloud up did not print its two variables")
	}
	go io.Copy(io.Discard, out)
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"))
	if err != nil {
		return err
	}
	b.client = ec2.NewFromConfig(cfg)
	return b.access(ctx)
}

func (b *bench) stopCloud() {
	if b.server != nil {
		b.server.Process.Signal(os.Interrupt)
		b.server.Wait()
	}
}

const keyName = "bake-bench"

func (b *bench) access(ctx context.Context) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if b.key, err = ssh.NewSignerFromKey(private); err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, keyName)
	if err != nil {
		return err
	}
	b.keyPEM = filepath.Join(b.dir, "key")
	if err := os.WriteFile(b.keyPEM, pem.EncodeToMemory(block), 0o600); err != nil {
		return err
	}
	if _, err := b.client.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: aws.String(keyName)}); err != nil {
		return err
	}
	if _, err := b.client.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: aws.String(keyName), PublicKeyMaterial: ssh.MarshalAuthorizedKey(b.key.PublicKey())}); err != nil {
		return err
	}
	_, err = b.client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupName: aws.String("default"), IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), CidrIp: aws.String("0.0.0.0/0")})
	if err != nil && !strings.Contains(err.Error(), "InvalidPermission.Duplicate") {
		return err
	}
	return nil
}

// launched holds the times since the call of RunInstances.
type launched struct{ answer, login, command time.Duration }

// runInstance launches a machine and runs a command on it over SSH.
func (b *bench) runInstance(ctx context.Context) (*types.Instance, error) {
	in, _, err := b.runMachine(ctx)
	return in, err
}

// runMachine launches the newest AMI of Debian 12, as the main job does, and runs a command on it over SSH.
func (b *bench) runMachine(ctx context.Context) (in *types.Instance, took launched, err error) {
	images, err := b.client.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"136693071363"},
		Filters: []types.Filter{{Name: aws.String("name"), Values: []string{"debian-12-amd64-*"}}}})
	if err != nil {
		return nil, took, err
	}
	if len(images.Images) == 0 {
		return nil, took, errors.New("the cloud has no Debian AMI")
	}
	newest := slices.MaxFunc(images.Images, func(a, b types.Image) int {
		return strings.Compare(*a.CreationDate, *b.CreationDate)
	})
	start := time.Now()
	out, err := b.client.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: newest.ImageId, InstanceType: types.InstanceTypeT3Micro, KeyName: aws.String(keyName),
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		return nil, took, err
	}
	id := *out.Instances[0].InstanceId
	for ; time.Since(start) < 3*time.Minute; time.Sleep(5 * time.Millisecond) {
		if in == nil || aws.ToString(in.PublicIpAddress) == "" {
			d, err := b.client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
			if err != nil {
				return nil, took, err
			}
			in = &d.Reservations[0].Instances[0]
		}
		host := aws.ToString(in.PublicIpAddress)
		if host == "" {
			err = errors.New("it has no public address")
			continue
		}
		if took, err = b.firstCommand(host, start); err == nil {
			return in, took, nil
		}
	}
	return nil, took, fmt.Errorf("%s took no SSH command within three minutes: %w", id, err)
}

// firstCommand logs in to a machine and runs a command, and returns the time since start.
func (b *bench) firstCommand(host string, start time.Time) (took launched, err error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, "22"), 2*time.Second)
	if err != nil {
		return took, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(start.Add(3 * time.Minute)); err != nil {
		return took, err
	}
	answers := bufio.NewReader(conn)
	if _, err := answers.Peek(1); err != nil { // no server listens in the machine yet
		return took, err
	}
	took.answer = time.Since(start)
	c, channels, requests, err := ssh.NewClientConn(peeked{conn, answers}, host, &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(b.key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the machine was made a moment ago, on this host
	})
	if err != nil {
		return took, err
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	took.login = time.Since(start)
	s, err := client.NewSession()
	if err != nil {
		return took, err
	}
	defer s.Close()
	err = s.Run("true")
	took.command = time.Since(start)
	return took, err
}

// peeked is a connection from which some bytes were read ahead.
type peeked struct {
	net.Conn
	r io.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func (b *bench) terminate(ctx context.Context, in *types.Instance) error {
	if _, err := b.client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*in.InstanceId}}); err != nil {
		return err
	}
	return b.until(ctx, *in.InstanceId, types.InstanceStateNameTerminated)
}

func (b *bench) until(ctx context.Context, id string, want types.InstanceStateName) error {
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		d, err := b.client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		if err != nil {
			return err
		}
		if d.Reservations[0].Instances[0].State.Name == want {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s is not %s after a minute", id, want)
}
