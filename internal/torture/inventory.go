//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// holdings are the resources that a cloud stores for its user, read from its own files, so
// that unexpected kinds are included.
type holdings struct {
	images map[string]image  // by id
	others map[string]string // the kinds of other resources, by id or path
}

// image is an image or, within it, a snapshot.
type image struct {
	text      string   // the part that is the same for each bake of the same template
	snapshots []string // ids
}

// forgotten are the fields of images and snapshots that differ from bake to bake.
var forgotten = []string{"ClientToken", "CompletionTime", "CreationDate", "ImageId", "Request", "SnapshotId", "StartTime", "ForImage", "Progress"}

var (
	anID  = regexp.MustCompile(`\b(ami|snap|vol|i)-[0-9a-f]{8,}`)
	aTime = regexp.MustCompile(`Task created on \d+|Packer: \d{4}-[^"]* UTC`)
)

// inventory lists the resources in w.
func (w *world) inventory() (holdings, error) {
	h := holdings{map[string]image{}, map[string]string{}}
	dir := filepath.Join(w.dir, "cloud")
	objects := map[string]map[string]any{}
	kinds := map[string]string{}
	err := filepath.WalkDir(filepath.Join(dir, "ec2"), func(path string, d fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		kind, base := filepath.Base(filepath.Dir(path)), filepath.Base(path)
		if kind == "machines" {
			h.others["disk of "+base] = "disks"
			return fs.SkipDir
		}
		id, ok := strings.CutSuffix(base, ".json")
		// A fleet of the type instant is only the record of a request, as are the tasks of images
		// that were stored or exported. Some data about deregistered images is kept forever.
		if !ok || slices.Contains([]string{"fleets", "store-tasks", "exports", "deregistered-images"}, kind) {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		var object map[string]any
		if err == nil {
			err = json.Unmarshal(data, &object)
		}
		objects[id], kinds[id] = object, kind
		return err
	})
	if err != nil {
		return h, err
	}
	for id, o := range objects {
		switch {
		case kinds[id] == "images":
			h.images[id] = imageOf(o, objects)
		case kinds[id] == "networks":
			h.network(o)
		case kinds[id] == "instances" && state(o) == "terminated", o["GroupName"] == "default":
		case kinds[id] == "spot-requests" && (o["State"] != "active" && o["State"] != "open" || state(objects[fmt.Sprint(o["InstanceId"])]) == "terminated"):
		default:
			h.others[id] = kinds[id]
		}
	}
	return h, w.identities(h)
}

// inNetwork are the kinds of resources in the network of an account in a region, each with
// the field that holds the id.
var inNetwork = map[string]string{
	"Vpcs": "VpcId", "Subnets": "SubnetId", "RouteTables": "RouteTableId", "Gateways": "InternetGatewayId", "Acls": "NetworkAclId",
	"DhcpOptions": "DhcpOptionsId", "Addresses": "AllocationId", "Connects": "InstanceConnectEndpointId",
	"Nats": "NatGatewayId", "Endpoints": "VpcEndpointId", "Interfaces": "NetworkInterfaceId",
}

// network adds the resources of a network other than the default VPC and its parts.
func (h holdings) network(o map[string]any) {
	rows := func(kind string) (all []map[string]any) {
		list, _ := o[kind].([]any)
		for _, v := range list {
			row, _ := v.(map[string]any)
			all = append(all, row)
		}
		return all
	}
	given := map[any]bool{} // the default VPC and its DHCP options
	for _, v := range rows("Vpcs") {
		if v["IsDefault"] == true {
			given[v["VpcId"]], given[v["DhcpOptionsId"]] = true, true
		}
	}
	first := func(row map[string]any, list, field string) any {
		all, _ := row[list].([]any)
		if len(all) == 0 {
			return nil
		}
		m, _ := all[0].(map[string]any)
		return m[field]
	}
	for kind, field := range inNetwork {
		for _, row := range rows(kind) {
			switch {
			case kind == "Nats" && row["State"] == "deleted":
			case given[row[field]], kind == "Acls" && row["IsDefault"] == true, kind == "Subnets" && row["DefaultForAz"] == true:
			case kind == "RouteTables" && first(row, "Associations", "Main") == true: // goes with its VPC
			case kind == "Gateways" && given[first(row, "Attachments", "VpcId")]:
			default:
				h.others[fmt.Sprint(row[field])] = strings.ToLower(kind)
			}
		}
	}
}

// identities adds the roles, instance profiles and providers of tokens.
func (w *world) identities(h holdings) error {
	files, err := filepath.Glob(filepath.Join(w.dir, "cloud", "iam", "*.json"))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		var account struct{ Roles, Profiles, Providers map[string]any }
		if err := json.Unmarshal(data, &account); err != nil {
			return err
		}
		for name := range account.Roles {
			h.others[name+" (role)"] = "roles"
		}
		for name := range account.Profiles {
			h.others[name+" (instance profile)"] = "profiles"
		}
		for name := range account.Providers {
			h.others[name+" (OpenID Connect provider)"] = "providers"
		}
	}
	return err
}

// state returns the state of an instance, in any notation.
func state(instance map[string]any) any {
	if s, ok := instance["State"].(map[string]any); ok {
		return s["Name"]
	}
	return instance["State"]
}

func imageOf(o map[string]any, objects map[string]map[string]any) image {
	var i image
	devices, _ := o["BlockDeviceMappings"].([]any)
	for _, d := range devices {
		device, _ := d.(map[string]any)
		ebs, _ := device["Ebs"].(map[string]any)
		if id, ok := ebs["SnapshotId"].(string); ok {
			i.snapshots = append(i.snapshots, id)
			ebs["Snapshot"] = without(objects[id])
			delete(ebs, "SnapshotId")
		}
	}
	i.text = text(without(o))
	return i
}

func without(o map[string]any) map[string]any {
	o = maps.Clone(o)
	for _, key := range forgotten {
		delete(o, key)
	}
	return o
}

func text(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		panic(err) // it was read as JSON
	}
	return aTime.ReplaceAllString(anID.ReplaceAllString(b.String(), "$1"), "")
}

// album formats all images, in order, for comparing the images of two bakes.
func (h holdings) album() string {
	var texts []string
	for _, i := range h.images {
		texts = append(texts, i.text)
	}
	slices.Sort(texts)
	return strings.Join(texts, "")
}

// beside lists the resources, except the images with these ids and their snapshots.
func (h holdings) beside(ids []string) (left []string) {
	expected := slices.Clone(ids)
	for _, id := range ids {
		expected = append(expected, h.images[id].snapshots...)
	}
	for id := range h.images {
		if !slices.Contains(expected, id) {
			left = append(left, "images "+id)
		}
	}
	for id, kind := range h.others {
		if !slices.Contains(expected, id) {
			left = append(left, kind+" "+id)
		}
	}
	slices.Sort(left)
	return left
}
