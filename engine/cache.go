package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/component"
	"bake/config"
	"bake/internal/filedigest"
	"bake/provisioner"
	"bake/step"
)

// Cache stores the states of machines after each provisioner, as images.
type Cache interface {
	// Find returns the image stored under the last of the keys that has one, and the index of that
	// key; -1 if there is none.
	Find(ctx context.Context, region string, keys []string) (image string, at int, err error)

	// Keep starts making an image of a running machine. It returns when the machine may change
	// again, which may be before the image is complete. It also returns an error if an earlier
	// image of the same machine has failed. about is a description for users.
	Keep(ctx context.Context, region, instance, key, about string) error
}

// cachedTag is the tag of images that were built with a cache.
const cachedTag = "bake:cached"

// cached is the journal key that records that a build has used a cache.
const cached = "cached"

// caching is the state of a build's use of the cache.
type caching struct {
	started bool
	region  string
	base    string   // digest of the machine's initial state
	keys    []string // keys of the machine after each provisioner, as far as known
	done    int      // number of provisioners that can be skipped
}

// start looks for a cached machine to launch the build from. It implements
// [builder.Hooks.ResolveSource].
func (x *execution) start(ctx context.Context, from builder.LaunchSource) (image string, err error) {
	defer recovered(&err)
	c := &x.cache
	*c = caching{started: true, region: from.Region}
	if from.Unfit != "" {
		x.scope.Say(ctx, "The cache is not used: %s", from.Unfit)
		return "", nil
	}
	base, err := json.Marshal([]any{config.LanguageVersion, x.build.Type, x.build.Source, from.Image, from.Options, x.options.Uploads})
	if err != nil {
		return "", err
	}
	c.base = hashed(string(base))
	for i, p := range x.build.Provisioners {
		key, err := x.key(ctx, i)
		if err != nil {
			x.scope.Say(ctx, "The cache is not used from %s (%d of %d) on: %s", title(p), i+1, len(x.build.Provisioners), err)
			break
		}
		c.keys = append(c.keys, key)
	}
	if len(c.keys) == 0 {
		return "", nil
	}
	if from.Gone != "" {
		x.scope.Say(ctx, "Starting without the cache: image %s, from which to launch the machine, no longer exists", from.Gone)
		return "", nil
	}
	image, at, err := x.options.Cache.Find(ctx, from.Region, c.keys)
	if err != nil {
		x.scope.Warn(ctx, "The cache cannot be read: %s", err)
		return "", nil
	}
	if image == "" {
		x.scope.Say(ctx, "The cache has no machine that this build can start from")
		return "", nil
	}
	c.done = at + 1
	x.scope.Say(ctx, "Starting from the cache, image %s: %s (%d of %d) and everything before it are unchanged", image, title(x.build.Provisioners[at]), c.done, len(x.build.Provisioners))
	return image, nil
}

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// key returns the cache key of the machine after provisioner i, or an error that says why there is
// none.
func (x *execution) key(ctx context.Context, i int) (string, error) {
	before := x.cache.base
	if i > 0 {
		before = x.cache.keys[i-1]
	}
	p := x.build.Provisioners[i]
	switch varies := x.template.Varies(p.Component); {
	case p.PauseBefore > 0:
		return "", errors.New("it waits for something (pause_before)")
	case p.ContinueOnError:
		return "", errors.New("it may have failed (continue_on_error)")
	case varies != "":
		return "", fmt.Errorf("%s has a different value in each run", varies)
	}
	made, err := newComponent(ctx, x.maker, x.build, p.Component, x.components.Provisioners, standIns(x.exports[x.build]))
	if err != nil {
		return "", errors.New("its options are not known before it runs")
	}
	defer x.close(ctx, p.Type, made)
	keyed, ok := made.(provisioner.Keyed)
	if !ok {
		return "", fmt.Errorf("what provisioners of type %s do depends on more than their options and files", p.Type)
	}
	options, files, err := keyed.Key()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(options)
	if err != nil {
		return "", err
	}
	if varies := config.Varies(string(text)); varies != "" {
		return "", fmt.Errorf("%s has a different value in each run", varies)
	}
	contents, err := filedigest.Of(files)
	if err != nil {
		return "", err
	}
	return hashed(fmt.Sprintf("%s %s %s %s", before, p.Type, text, contents)), nil
}

// standIns returns placeholder values of build.* that are the same in each run, so that differences
// between machines do not change the cache key.
func standIns(exports component.Exports) cty.Value {
	values := map[string]cty.Value{}
	for name, typ := range exports.Types {
		switch typ {
		case cty.Number:
			values[name] = cty.NumberIntVal(1)
		case cty.Bool:
			values[name] = cty.False
		default:
			values[name] = cty.StringVal("build." + name)
		}
	}
	return cty.ObjectVal(values)
}

// keep stores the machine in the cache after provisioner i, unless files that the provisioner has
// read have changed meanwhile. A failure is only a warning, since the build does not need the
// cache.
func (x *execution) keep(ctx context.Context, m builder.Machine, i int) {
	c := &x.cache
	if i >= len(c.keys) {
		return
	}
	p := x.build.Provisioners[i]
	about := fmt.Sprintf("%s after %s (%d of %d)", x.build.Name, title(p), i+1, len(x.build.Provisioners))
	err := step.Run(ctx, x.scope.Unattended(), "keep the machine in the cache", func(ctx context.Context) error {
		switch now, err := x.key(ctx, i); {
		case err != nil:
			return err
		case now != c.keys[i]:
			return errors.New("files that the provisioner reads were changed while it ran")
		case m.Leftovers.Any():
			return errors.New("temporary files are left on the machine")
		}
		return x.options.Cache.Keep(ctx, c.region, m.Data["ID"].Text, c.keys[i], about)
	})
	if err != nil {
		c.keys = slices.Clip(c.keys[:i])
		if context.Cause(ctx) == nil {
			x.scope.Warn(ctx, "No more machines are added to the cache: %s", err)
		}
	}
}

// withCache adds the cache to the hooks of a build, if it may use one.
func (x *execution) withCache(hooks builder.Hooks) builder.Hooks {
	used, _ := step.Recall[bool](x.scope, cached)
	if x.options.Cache != nil {
		step.Record(x.scope, cached, true)
		hooks.ResolveSource = x.start
	} else if !used {
		return hooks
	}
	tags := hooks.ImageTags
	hooks.ImageTags = func(ctx context.Context) (map[string]string, error) {
		all := map[string]string{cachedTag: "true"}
		if tags == nil {
			return all, nil
		}
		more, err := tags(ctx)
		for k, v := range more {
			all[k] = v
		}
		return all, err
	}
	return hooks
}
