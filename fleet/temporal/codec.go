package temporal

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"slices"

	common "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"

	"bake/run"
)

// codecVar is the environment variable that enables encryption of everything in a history.
// Any process that has the key can read encrypted data, whether or not the variable is
// set.
const codecVar = "BAKE_FLEET_ENCRYPT"

// encoding marks payloads that the codec has encrypted.
const encoding = "binary/bake-aes-gcm"

// sealed returns the data converter that reads data encrypted with a key, and also
// encrypts if encrypt is set.
func sealed(key run.Key, encrypt bool) converter.DataConverter {
	return packing(codec{key, encrypt})
}

// packing returns the data converter that compresses large payloads before the codecs
// encode them.
func packing(codecs ...converter.PayloadCodec) converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), append(codecs, packer{})...)
}

const (
	// packedEncoding marks payloads that the packer has compressed.
	packedEncoding = "binary/bake-zlib"

	// packFrom is the size in bytes from which payloads are compressed: smaller ones stay
	// readable in the web interface.
	packFrom = 16 << 10

	// mostUnpacked is the maximum size of a decompressed payload.
	mostUnpacked = 64 << 20
)

// packer is a [converter.PayloadCodec].
type packer struct{}

// Encode implements [converter.PayloadCodec].
func (packer) Encode(in []*common.Payload) ([]*common.Payload, error) {
	out := slices.Clone(in)
	for i, p := range in {
		if len(p.GetData()) < packFrom {
			continue
		}
		text, err := proto.Marshal(p)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		if _, err := w.Write(text); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		if b.Len() < len(text) {
			out[i] = &common.Payload{Metadata: map[string][]byte{converter.MetadataEncoding: []byte(packedEncoding)}, Data: b.Bytes()}
		}
	}
	return out, nil
}

// Decode implements [converter.PayloadCodec]. It does not change payloads that were not
// compressed.
func (packer) Decode(in []*common.Payload) ([]*common.Payload, error) {
	out := slices.Clone(in)
	for i, p := range in {
		if string(p.GetMetadata()[converter.MetadataEncoding]) != packedEncoding {
			continue
		}
		r, err := zlib.NewReader(bytes.NewReader(p.GetData()))
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(r, mostUnpacked+1))
		if err == nil && len(text) > mostUnpacked {
			err = fmt.Errorf("a payload has more than %d MB", mostUnpacked>>20)
		}
		if err != nil {
			return nil, err
		}
		out[i] = &common.Payload{}
		if err := proto.Unmarshal(text, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// failures returns the converter of errors: with encrypt, their messages and stacks are encrypted.
func failures(c converter.DataConverter, encrypt bool) converter.FailureConverter {
	return temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{DataConverter: c, EncodeCommonAttributes: encrypt})
}

// codec is a [converter.PayloadCodec].
type codec struct {
	key     run.Key
	encrypt bool
}

// Encode implements [converter.PayloadCodec].
func (c codec) Encode(in []*common.Payload) ([]*common.Payload, error) {
	if !c.encrypt {
		return in, nil
	}
	out := make([]*common.Payload, len(in))
	for i, p := range in {
		text, err := proto.Marshal(p)
		if err != nil {
			return nil, err
		}
		if text, err = c.key.Seal(text); err != nil {
			return nil, err
		}
		out[i] = &common.Payload{Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encoding)}, Data: text}
	}
	return out, nil
}

// Decode implements [converter.PayloadCodec]. It does not change payloads that were not
// encrypted.
func (c codec) Decode(in []*common.Payload) ([]*common.Payload, error) {
	out := make([]*common.Payload, len(in))
	for i, p := range in {
		if string(p.GetMetadata()[converter.MetadataEncoding]) != encoding {
			out[i] = p
			continue
		}
		text, err := c.key.Open(p.GetData())
		if err != nil {
			return nil, err
		}
		out[i] = &common.Payload{}
		if err := proto.Unmarshal(text, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
