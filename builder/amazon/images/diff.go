package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Difference is a difference between two images. A value that one of them does not have is
// "".
type Difference struct {
	What string `json:"what"` // such as "tag env", or "/dev/xvda: size"
	A    string `json:"a"`
	B    string `json:"b"`
}

// Comparison is the result of comparing two images.
type Comparison struct {
	A           Image        `json:"a"`
	B           Image        `json:"b"`
	Differences []Difference `json:"differences"`
}

// Diff compares two images: their attributes, tags, block devices and, for images of the
// account, keys and sharing. It does not compare attributes that always differ, such as
// IDs and dates, or the contents of volumes. With an error, it returns what could be
// compared nevertheless.
func (a *Account) Diff(ctx context.Context, refA, refB string) (Comparison, error) {
	one, err := a.One(ctx, refA)
	if err != nil {
		return Comparison{}, err
	}
	two, err := a.One(ctx, refB)
	if err != nil {
		return Comparison{}, err
	}
	first, err := a.facts(ctx, one)
	second, err2 := a.facts(ctx, two)
	c := Comparison{A: one, B: two, Differences: []Difference{}}
	if one.Owner != a.ID || two.Owner != a.ID { // attributes that are visible for only one of them do not count as differences
		for _, facts := range []map[string]string{first, second} {
			maps.DeleteFunc(facts, func(what, _ string) bool { return what == factSharing || strings.HasSuffix(what, factKey) })
		}
	}
	for _, what := range slices.Sorted(maps.Keys(merged(first, second))) {
		if first[what] != second[what] {
			c.Differences = append(c.Differences, Difference{what, first[what], second[what]})
		}
	}
	return c, errors.Join(err, err2)
}

// The attributes that are visible only to the owner of an image.
const (
	factSharing = "shared with"
	factKey     = ": key"
)

// facts returns the attributes by which images are compared, by name.
func (a *Account) facts(ctx context.Context, i Image) (map[string]string, error) {
	f := map[string]string{
		"name": i.Name, "region": i.Region, "owner": i.Owner, "state": i.State, "description": i.Description,
		"architecture": i.Architecture, "platform": i.Platform, "boot mode": i.BootMode, "IMDS": i.IMDS, "TPM": i.TPM, "ENA": yes(i.ENA),
		"root device": i.RootDevice, "public": yes(i.Public), "made from": i.SourceImage,
		"product codes": strings.Join(i.ProductCodes, ", "), "watermarks": strings.Join(i.Watermarks, ", "),
		"protected from deregistration": yes(i.protected()), "deprecated from": "",
	}
	if i.Deprecated != nil {
		f["deprecated from"] = i.Deprecated.Format(time.RFC3339)
	}
	for k, v := range i.Tags {
		f["tag "+k] = v
		if v == "" {
			f["tag "+k] = "(empty)"
		}
	}
	for _, d := range i.Devices {
		f[d.Name] = "present"
		if d.Virtual != "" {
			f[d.Name+": instance store"] = d.Virtual
			continue
		}
		f[d.Name+": size"] = fmt.Sprintf("%d GiB", d.Size)
		f[d.Name+": type"] = d.Type
		f[d.Name+": IOPS"] = number(d.IOPS)
		f[d.Name+": throughput"] = number(d.Throughput)
		f[d.Name+": encrypted"] = yes(d.Encrypted)
		f[d.Name+": deleted on termination"] = yes(d.Deleted)
	}
	if i.Owner != a.ID {
		return f, nil
	}
	sharing, err := a.Sharing(ctx, i)
	f[factSharing] = sharing.String()
	parts, err2 := a.snapshots(ctx, i)
	for _, s := range parts {
		f[s.Device+factKey] = s.Key
	}
	return f, errors.Join(err, err2)
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// number formats n; zero is empty.
func number(n int32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
