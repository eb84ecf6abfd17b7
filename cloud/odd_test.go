package cloud_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/wire"
)

// TestOddParameters calls every action of every service with parameters that are missing,
// empty, or have odd values or places. Whatever a client sends, it must get an answer, and
// never an internal error.
func TestOddParameters(t *testing.T) {
	const seed, rounds = 1, 60
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	known := knownIDs(t, client)
	odd := &oddities{chance: rand.New(rand.NewPCG(seed, 0)), known: known}

	// This test has a server of its own, since it examines the server's log.
	var panics bytes.Buffer
	server := httptest.NewUnstartedServer(s.Handler())
	server.Config.ErrorLog = log.New(&panics, "", 0)
	server.Start()
	defer server.Close()
	for _, service := range []string{"ec2", "iam", "kms", "sts", "ssm", "secretsmanager", "autoscaling", "organizations"} {
		m, err := wire.Load(service)
		if err != nil {
			t.Fatal(err)
		}
		odd.m = m
		failed := map[string]bool{}
		// In alternation, so that what one action removes another creates again. Actions
		// that end things come last, so that there is something to act on.
		for _, ends := range []bool{false, true} {
			for range rounds {
				for _, action := range slices.Sorted(maps.Keys(m.Operations)) {
					if ending(action) != ends || failed[action] {
						continue
					}
					request := odd.request(action)
					status, answer := send(t, server.URL, s.Credentials()[0], service, m, action, request)
					if status == 0 || status == http.StatusInternalServerError {
						t.Errorf("%s %v: status %d, %s\n%s", action, request, status, answer, panics.String())
						panics.Reset()
						failed[action] = true
					}
				}
			}
		}
	}
}

// ending reports whether an action makes something unusable.
func ending(action string) bool {
	return action != "DeleteTags" && slices.ContainsFunc([]string{"Delete", "Deregister", "Terminate", "Disable", "Cancel"}, func(verb string) bool {
		return strings.HasPrefix(action, verb)
	})
}

// knownIDs returns ids and names of existing resources, by the name of the parameter for
// them.
func knownIDs(t *testing.T, client *ec2.Client) map[string][]string {
	t.Helper()
	ctx := t.Context()
	instance := run(t, client, ec2.RunInstancesInput{})
	made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: instance.InstanceId, Name: aws.String("odd"), NoReboot: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	img := awaitImage(t, client, *made.ImageId)
	volume, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	group, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("odd"), Description: aws.String("odd")})
	if err != nil {
		t.Fatal(err)
	}
	template, err := client.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("odd"), LaunchTemplateData: requestData(*img.ImageId)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*instance.InstanceId, *group.GroupId, *volume.VolumeId, *img.ImageId},
		Tags: []types.Tag{{Key: aws.String("odd"), Value: aws.String("odd")}}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]string{
		"Image":    {*img.ImageId, source(t, client)},
		"Instance": {*instance.InstanceId},
		"Volume":   {*volume.VolumeId, *instance.BlockDeviceMappings[0].Ebs.VolumeId},
		"Snapshot": {*img.BlockDeviceMappings[0].Ebs.SnapshotId},
		"Group":    {*group.GroupId, "odd", "default"},
		"Template": {*template.LaunchTemplate.LaunchTemplateId, "odd"},
		"Subnet":   {*instance.SubnetId},
		"Vpc":      {*instance.VpcId},
		"Resource": {*instance.InstanceId, *group.GroupId, *volume.VolumeId, *img.ImageId, *instance.NetworkInterfaces[0].NetworkInterfaceId},
		"Zone":     {"us-east-1a"},
		"Region":   {"us-east-1", "eu-west-1"},
		"Device":   {"/dev/xvda", "/dev/sdf"},
		"Name":     {"odd", "tag:odd", "tag-key", "state"},
		"Type":     {"t3.micro", "gp3"},
	}
}

// oddities generates requests.
type oddities struct {
	m      *wire.Model
	chance *rand.Rand
	known  map[string][]string
}

// request returns random parameters of an action as a tree: text, numbers, lists and maps,
// each of which may be omitted.
func (o *oddities) request(action string) map[string]any {
	shape := o.m.Operations[action].Input
	if shape == "" {
		return map[string]any{}
	}
	return o.structure(shape, 0)
}

func (o *oddities) structure(shape string, depth int) map[string]any {
	s, out := o.m.Shapes[shape], map[string]any{}
	// Sometimes all, mostly few: parameters that are checked late must not hide behind
	// errors found early.
	density := []float64{0.02, 0.1, 0.3, 0.9}[o.chance.IntN(4)]
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		required := slices.Contains(s.Required, name) || o.known[kindNamed(name)] != nil || strings.HasSuffix(name, "Count")
		if name == "DryRun" || depth > 4 || o.chance.Float64() > density && !(required && o.chance.IntN(10) > 0) {
			continue
		}
		out[name] = o.value(name, s.Members[name].Shape, depth)
	}
	return out
}

func (o *oddities) value(name, shape string, depth int) any {
	s, compound := o.m.Shapes[shape]
	switch {
	case compound && s.List != nil:
		list := []any{}
		for range o.chance.IntN(3) {
			list = append(list, o.value(name, s.List.Shape, depth+1))
		}
		return list
	case compound && s.Map != nil:
		return map[string]any{"k": o.value(name, s.Map.Shape, depth+1)}
	case compound:
		return o.structure(shape, depth+1)
	}
	switch shape {
	case "integer", "long", "double", "float":
		return []int{0, 1, 1, -1, 10, 1 << 30}[o.chance.IntN(6)]
	case "boolean":
		return o.chance.IntN(2) == 0
	case "timestamp":
		return []int{0, 4102444800}[o.chance.IntN(2)]
	}
	texts := append([]string{"", "x", "ami-12345678", "*", "add", "1", "launchPermission"}, o.known[kindNamed(name)]...)
	if good := o.known[kindNamed(name)]; good != nil && o.chance.IntN(4) > 0 {
		texts = good
	}
	return texts[o.chance.IntN(len(texts))]
}

// kindNamed returns the kind of resource that a parameter with that name refers to.
func kindNamed(name string) string {
	for _, kind := range []string{"Type", "Device", "Image", "Instance", "Volume", "Snapshot", "Group", "Template", "Subnet", "Vpc", "Resource", "Zone", "Region", "Name"} {
		if strings.Contains(name, kind) {
			return kind
		}
	}
	return ""
}

// send makes a signed request and returns the status, 0 if there is no answer.
func send(t *testing.T, at string, c cloud.Credentials, service string, m *wire.Model, action string, tree map[string]any) (int, string) {
	t.Helper()
	var body []byte
	header := http.Header{}
	if m.Protocol == "json" {
		var err error
		if body, err = json.Marshal(tree); err != nil {
			t.Fatal(err)
		}
		header.Set("Content-Type", "application/x-amz-json-1.1")
		header.Set("X-Amz-Target", m.Target+"."+action)
	} else {
		params := url.Values{"Action": {action}, "Version": {m.Version}}
		flatten(m, m.Operations[action].Input, "", tree, params)
		body = []byte(params.Encode())
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at+"/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey}, r, hex.EncodeToString(sum[:]), service, "us-east-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}

// flatten writes a tree as query parameters.
func flatten(m *wire.Model, shape, name string, tree any, into url.Values) {
	s := m.Shapes[shape]
	switch v := tree.(type) {
	case map[string]any:
		if len(v) == 0 && name != "" {
			into.Set(name, "")
		}
		for member, value := range v {
			key := m.RequestName(member, s.Members[member])
			if name != "" {
				key = name + "." + key
			}
			flatten(m, s.Members[member].Shape, key, value, into)
		}
	case []any:
		if len(v) == 0 {
			into.Set(name, "")
		}
		if m.Protocol == "query" {
			name += ".member"
		}
		for i, value := range v {
			flatten(m, s.List.Shape, name+"."+strconv.Itoa(i+1), value, into)
		}
	default:
		into.Set(name, fmt.Sprint(v))
	}
}
