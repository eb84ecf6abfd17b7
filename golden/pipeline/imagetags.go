package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"bake/golden/reports"
	"bake/internal/imagetag"
	"bake/step"
)

// longestTag is the maximum length of a tag value, in characters.
const longestTag = 256

// The journal keys of the image's tags so far, and of the checks that it has passed.
const (
	tagsKey   = "image tags"
	passedKey = "passed checks"
)

// addTag adds a tag that the image and its copies get before they are distributed. It
// may be called until then; a later value replaces an earlier one.
func (p *pipeline) addTag(s *step.Scope, key, value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recall(s)
	p.tags[key] = value
	step.Record(s, tagsKey, p.tags)
}

// passed records that the image has passed a verification or check, such as "verify.boot".
func (p *pipeline) passed(s *step.Scope, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recall(s)
	p.passes[name] = true
	step.Record(s, passedKey, p.passes)
}

// imageTags returns all tags added by [pipeline.addTag], including those of earlier
// processes of the run, with the name of the image, the run that has its reports, and what
// it has passed.
func (p *pipeline) imageTags(ctx context.Context, s *step.Scope) (map[string]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recall(s)
	all := maps.Clone(p.tags)
	all[imagetag.Image], all[reports.Run] = p.image.Name, s.Run.ID
	if len(p.passes) == 0 {
		return all, nil
	}
	names := strings.Join(slices.Sorted(maps.Keys(p.passes)), ",")
	if utf8.RuneCountInString(names) <= longestTag {
		all[imagetag.Verified] = names
		return all, nil
	}
	digest := sha256.Sum256([]byte(names))
	all[imagetag.Verified] = "sha256:" + hex.EncodeToString(digest[:])
	return all, p.Reports.Write(ctx, fileName(p.title(s)+".verified")+".txt", []byte(names))
}

// recall must be called with the lock held.
func (p *pipeline) recall(s *step.Scope) {
	if p.tags != nil {
		return
	}
	p.tags, _ = step.Recall[map[string]string](s, tagsKey)
	if p.tags == nil {
		p.tags = map[string]string{}
	}
	p.passes, _ = step.Recall[map[string]bool](s, passedKey)
	if p.passes == nil {
		p.passes = map[string]bool{}
	}
}
