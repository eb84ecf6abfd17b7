package temporal

import (
	common "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"

	"bake/run"
)

// codecVar is the environment variable that has everything encrypted that goes into a
// history. What is encrypted is read by all that have the key, with it or without.
const codecVar = "BAKE_FLEET_ENCRYPT"

// encoding is what the payloads say that the codec has made.
const encoding = "binary/bake-aes-gcm"

// sealed is the data converter that reads what was encrypted with a key, and encrypts with it
// if encrypt says so.
func sealed(key run.Key, encrypt bool) converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec{key, encrypt})
}

// failures is the converter of errors: with encrypt, their messages and stacks are encrypted.
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

// Decode implements [converter.PayloadCodec]. What was not encrypted stays as it is.
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
