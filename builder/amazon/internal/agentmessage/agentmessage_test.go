package agentmessage

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestLayout checks every byte of a message.
func TestLayout(t *testing.T) {
	m := Message{Kind: InputData, Seq: 3, Flags: 1, ID: uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"), PayloadType: PayloadData, Payload: []byte("hi")}
	got := hex.EncodeToString(m.Encode(time.UnixMilli(0x0102030405)))
	want := "00000074" + "696e7075745f73747265616d5f64617461" + "202020202020202020202020202020" + "00000001" + "0000000102030405" +
		"0000000000000003" + "0000000000000001" + "8899aabbccddeeff" + "0011223344556677" +
		"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4" + "00000001" + "00000002" + "6869"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzDecode: Decode never panics, and what it accepts is the same after encoding and decoding.
func FuzzDecode(f *testing.F) {
	good := Message{Kind: OutputData, Seq: 1, ID: uuid.New(), PayloadType: PayloadData, Payload: []byte("x")}.Encode(time.Now())
	for _, seed := range [][]byte{good, good[:119], good[:60], nil, bytes.Repeat([]byte{0xff}, 200), append([]byte{0, 0, 1, 0}, good[4:]...)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil || len(m.Kind) > 32 {
			return
		}
		again, err := Decode(m.Encode(time.Now()))
		if err != nil || again.Seq != m.Seq || again.ID != m.ID || again.PayloadType != m.PayloadType || !bytes.Equal(again.Payload, m.Payload) {
			t.Errorf("%+v, %v; want %+v", again, err, m)
		}
	})
}

func TestDamaged(t *testing.T) {
	good := Message{Kind: OutputData, PayloadType: PayloadData, Payload: []byte("hello")}.Encode(time.Now())
	for i := 80; i < 112; i += 8 {
		bad := bytes.Clone(good)
		bad[i]++
		if _, err := Decode(bad); err == nil {
			t.Errorf("a digest that is wrong at %d is taken", i)
		}
	}
	good[len(good)-1]++
	if _, err := Decode(good); err == nil {
		t.Error("a damaged payload is taken")
	}
}
