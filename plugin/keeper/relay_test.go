package keeper

import (
	"testing"

	"bake/plugin/wire"
)

// TestWhatIsWork: the calls that a keeper waits for when bake is gone, and those it can cancel.
func TestWhatIsWork(t *testing.T) {
	number := func(n int64) any { return n }
	for _, tc := range []struct {
		method, service string
		args, reply     any
		stream          uint32 // that is dialled when it begins
		artifact        uint32
		work            bool
	}{
		{method: "Builder.Run", args: number(3), reply: number(9), service: "Builder", stream: 3, artifact: 9, work: true},
		{method: "Builder.Run", args: number(3), reply: number(0), service: "Builder", stream: 3, work: true},
		{method: "Provisioner.Provision", args: map[string]any{"StreamID": number(4), "GeneratedData": map[string]any{}}, service: "Provisioner", stream: 4, work: true},
		{method: "PostProcessor.PostProcess", args: number(5), reply: map[string]any{"Keep": true, "StreamId": number(8)}, service: "PostProcessor", stream: 5, artifact: 8, work: true},
		{method: "Artifact.Destroy", service: "Artifact", reply: number(6), work: true},
		{method: "Builder.Prepare", args: map[string]any{"Configs": []any{}}},
		{method: "Builder.ConfigSpec"},
		{method: "Builder.Run", args: "garbage", reply: []any{}, service: "Builder", work: true},
	} {
		r := &relay{calls: map[call]*work{}, results: map[uint32]bool{}, changed: make(chan struct{})}
		r.called(0, wire.Message{Method: tc.method, Seq: 7, Body: tc.args})
		w := r.calls[call{0, 7}]
		if (w != nil) != tc.work || w != nil && (w.service != tc.service || w.stream != tc.stream || w.cancelled) {
			t.Errorf("%s: %+v", tc.method, w)
		}
		r.called(0, wire.Message{Method: tc.service + ".Cancel", Seq: 8})
		if w != nil && !w.cancelled {
			t.Errorf("%s would be cancelled once more", tc.method)
		}
		answer := wire.Message{Seq: 7, Body: tc.reply}
		r.returned(1, answer) // of another stream
		r.answered(1, answer)
		if len(r.results) != 0 {
			t.Errorf("%s: the answer on another stream is an artifact", tc.method)
		}
		if len(r.calls) == 0 && tc.work {
			t.Errorf("%s: the answer on another stream ended it", tc.method)
		}
		r.returned(0, answer)
		if (len(r.calls) != 0) != tc.work || (tc.artifact != 0) != r.results[tc.artifact] {
			t.Errorf("%s: before the answer is passed on %v, %v", tc.method, r.calls, r.results)
		}
		r.answered(0, answer)
		if len(r.calls) != 0 || (tc.artifact != 0) != r.results[tc.artifact] || len(r.results) > 1 {
			t.Errorf("%s: after the answer %v, %v", tc.method, r.calls, r.results)
		}
	}
}
