package pipeline

import (
	"context"
	"encoding/json"
	"maps"

	"bake/golden/changes"
	"bake/golden/reports"
	"bake/step"
)

// documentsAre is the key under which the documents so far are recorded.
const documentsAre = "documents"

// document records a document about the image.
func (p *pipeline) document(s *step.Scope, name, digest string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recallDocuments(s)
	p.kept[name] = digest
	step.Record(s, documentsAre, p.kept)
}

// documents returns the digests of all documents about the image, by name.
func (p *pipeline) documents(s *step.Scope) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recallDocuments(s)
	return maps.Clone(p.kept)
}

// recallDocuments must be called with the lock held.
func (p *pipeline) recallDocuments(s *step.Scope) {
	if p.kept != nil {
		return
	}
	if p.kept, _ = step.Recall[map[string]string](s, documentsAre); p.kept == nil {
		p.kept = map[string]string{}
	}
}

// record writes the list of the documents about the image so far.
func (p *pipeline) record(ctx context.Context, s *step.Scope) error {
	const extension = ".image.json"
	r := changes.Record{Version: 1, Image: p.image.Name, Build: s.Build, Place: p.Place, Run: s.Run.ID, Documents: p.documents(s)}
	delete(r.Documents, fileName(p.title(s))+extension)
	if len(r.Documents) == 0 {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	digest, err := p.keep(ctx, s, p.title(s), extension, append(text, '\n'))
	if err == nil {
		p.addTag(s, reports.Record, digest)
	}
	return err
}
