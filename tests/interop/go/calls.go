// Calls that are read from standard input as JSON, of messages that are bytes (tests/interop_support.py).
package main

import (
	"compress/zlib"
	"context"
	"encoding/json"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type call struct {
	Path        string
	Requests    [][]byte
	Streams     bool
	Metadata    [][2]string
	Timeout     float64
	Compression string
	Take        int
}

type answer struct {
	Code     codes.Code  `json:"code"`
	Details  string      `json:"details"`
	Messages [][]byte    `json:"messages"`
	Metadata [][2]string `json:"metadata"`
}

type asItIs struct{}

func (asItIs) Marshal(message interface{}) ([]byte, error) { return *message.(*[]byte), nil }
func (asItIs) Name() string                                { return "proto" }
func (asItIs) Unmarshal(data []byte, message interface{}) error {
	*message.(*[]byte) = append([]byte{}, data...)
	return nil
}

// The library has gzip only, and takes others of the program's.
type deflate struct{}

func (deflate) Name() string                                  { return "deflate" }
func (deflate) Compress(to io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(to), nil }
func (deflate) Decompress(from io.Reader) (io.Reader, error)  { return zlib.NewReader(from) }

// One that no server knows.
type unknown struct{ deflate }

func (unknown) Name() string { return "unknown" }

func init() {
	encoding.RegisterCompressor(deflate{})
	encoding.RegisterCompressor(unknown{})
}

// Sends all requests and takes the answers, at most as many as are wanted.
func stream(context context.Context, asked call, options []grpc.CallOption, each func([]byte)) error {
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := connection.NewStream(context, both, asked.Path, options...)
	for i := 0; err == nil && i < len(asked.Requests); i++ {
		err = stream.SendMsg(&asked.Requests[i])
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil || err == io.EOF {
		var message []byte
		if err = stream.RecvMsg(&message); err != nil {
			break
		}
		each(message)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func answerTo(asked call) answer {
	limited, done := context.WithTimeout(context.Background(), time.Duration(asked.Timeout*float64(time.Second)))
	defer done()
	for _, each := range asked.Metadata {
		limited = metadata.AppendToOutgoingContext(limited, each[0], each[1])
	}
	var trailing metadata.MD
	options := []grpc.CallOption{grpc.ForceCodec(asItIs{}), grpc.Trailer(&trailing)}
	if asked.Compression != "" {
		options = append(options, grpc.UseCompressor(asked.Compression))
	}
	got := answer{Messages: [][]byte{}, Metadata: [][2]string{}}
	take := func(message []byte) {
		if got.Messages = append(got.Messages, message); len(got.Messages) == asked.Take {
			done()
		}
	}
	var err error
	if asked.Streams {
		err = stream(limited, asked, options, take)
	} else {
		var message []byte
		if err = connection.Invoke(limited, asked.Path, &asked.Requests[0], &message, options...); err == nil {
			take(message)
		}
	}
	got.Code, got.Details = status.Code(err), status.Convert(err).Message()
	for name, values := range trailing {
		for _, value := range values {
			got.Metadata = append(got.Metadata, [2]string{name, value})
		}
	}
	return got
}

func makeCalls() {
	var calls []call
	if err := json.NewDecoder(os.Stdin).Decode(&calls); err != nil {
		panic(err)
	}
	answers := []answer{}
	for _, each := range calls {
		answers = append(answers, answerTo(each))
	}
	json.NewEncoder(os.Stdout).Encode(answers)
}
