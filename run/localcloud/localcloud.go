// Package localcloud replaces AWS by the local cloud: it makes the Amazon components
// work on it, detects the loss of its server, and finds resources on it again.
package localcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bake/builder/amazon"
	"bake/internal/local"
)

// Name is how ledgers name the local cloud.
const Name = "local"

// Cloud is the local cloud as the components see it.
type Cloud struct {
	amazon.Cloud
	open *local.Cloud
}

// Options define where the local cloud is and how this process serves it.
type Options = local.Options

// Child runs the part of a machine for which this process was started, if it was, and reports
// its exit code. A program that opens the local cloud calls it before anything else, since
// machines are processes of the same program.
func Child(args []string) (ran bool, code int) { return local.Child(args) }

// Open returns the local cloud. If another process serves it, that one is used, and
// does not end before Close; otherwise this process serves it until Close.
func Open(ctx context.Context, o Options) (*Cloud, error) {
	c, err := local.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Cloud{standIn(c), c}, nil
}

// standIn returns the local cloud in place of AWS.
func standIn(c *local.Cloud) amazon.Cloud {
	return amazon.Cloud{
		Name: Name, Endpoint: c.Endpoint, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Region: local.DefaultRegion, Explain: c.Explain, ExpectKey: c.ExpectKey,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, addr)
			if errors.Is(err, syscall.ECONNREFUSED) {
				// An ordinary user cannot listen on low ports of the machine's address.
				return Connect(ctx, c.Endpoint, addr)
			}
			return conn, err
		},
		DialInstance: func(ctx context.Context, id string, port int) (net.Conn, error) {
			return Connect(ctx, c.Endpoint, net.JoinHostPort(id, strconv.Itoa(port)))
		},
	}
}

// Close releases the cloud. If this process serves it, Close waits until no other
// process uses it, and then shuts the machines down; they are killed when stop ends.
func (c *Cloud) Close(stop context.Context) error { return c.open.Close(stop) }

// Trouble explains why nothing can be written to the cloud's directory, and what to do. It is empty
// if that is possible.
func (c *Cloud) Trouble() string { return local.Trouble(c.open.Dir) }

// Served reports whether this process serves the cloud, so that its machines end with
// it.
func (c *Cloud) Served() bool { return c.open.ServedBy == 0 }

// Environment points AWS clients in other processes at the cloud.
func (c *Cloud) Environment() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + c.Endpoint,
		"AWS_SHARED_CREDENTIALS_FILE=" + c.open.CredentialsFile,
		"AWS_ACCESS_KEY_ID=" + c.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + c.SecretKey,
		"AWS_SESSION_TOKEN=",
		"AWS_DEFAULT_REGION=" + c.Region,
	}
}

func (c *Cloud) config(region string) aws.Config {
	return aws.Config{
		Region: region, BaseEndpoint: aws.String(c.Endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, ""),
	}
}

// ec2 returns a client for a region of the cloud.
func (c *Cloud) ec2(region string) *ec2.Client { return ec2.NewFromConfig(c.config(region)) }

// Account returns the ID of the account whose credentials are used.
func (c *Cloud) Account(ctx context.Context) (string, error) {
	out, err := sts.NewFromConfig(c.config(c.Region)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.Account), nil
}

// ServedPort returns the port of this host at which a machine's port is served. It differs
// from port if this user may not listen on that port, or if another process listens on it
// on all addresses.
func ServedPort(port int) int {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.255.255.254:%d", port))
	if err != nil {
		return port + local.MovedBy
	}
	l.Close()
	return port
}
