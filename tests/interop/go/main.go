// The cases of interop.proto, called with google.golang.org/grpc; prints what came of each as JSON.
//
//	client [--calls] <host:port> [<file of the authority's certificate> [<file of a certificate of its own> <file of
//	that one's key>]]
//
// With --calls it makes those that its standard input has instead: calls.go.
//
// interop.pb.go is what protoc-gen-go (of github.com/golang/protobuf 1.3, which newer libraries take too) makes:
//
//	protoc --go_out=plugins=grpc:go interop.proto
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/ioutil"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/golang/protobuf/proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const messageBytes = 100 << 20

type result map[string]interface{}

var (
	client     InteropClient
	connection *grpc.ClientConn
	// Another key in each run, though the server goes on.
	run = fmt.Sprintf("go-%d-%d", os.Getpid(), time.Now().UnixNano())
)

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

func pattern(size int) []byte {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(i*31 + i>>8)
	}
	return payload
}

func echo(request *EchoRequest) (*EchoReply, error) {
	context, done := patience()
	defer done()
	return client.Echo(context, request)
}

func echoEqual(payload []byte) result {
	reply, err := echo(&EchoRequest{Payload: payload})
	return result{"code": status.Code(err), "equal": bytes.Equal(reply.GetPayload(), payload)}
}

// Reads a stream of numbers to its end.
func numbers(request *RangeRequest, each func(*Number)) codes.Code {
	context, done := patience()
	defer done()
	stream, err := client.Range(context, request)
	for err == nil {
		var number *Number
		if number, err = stream.Recv(); err == nil {
			each(number)
		}
	}
	return end(err)
}

// The status of a stream that was read to its end.
func end(err error) codes.Code {
	if err == io.EOF {
		return codes.OK
	}
	return status.Code(err)
}

func sum(count int64) result {
	context, done := patience()
	defer done()
	stream, err := client.Sum(context)
	for value := int64(0); err == nil && value < count; value++ {
		err = stream.Send(&Number{Value: value})
	}
	if err == nil || err == io.EOF {
		var total *Number
		if total, err = stream.CloseAndRecv(); err == nil {
			return result{"sum": total.Value}
		}
	}
	return result{"failed": err.Error()}
}

// Sends a line when the one before has been answered.
func chat(lines []*Line, each func(int, *Line)) error {
	context, done := patience()
	defer done()
	stream, err := client.Chat(context)
	for i, line := range lines {
		if err == nil {
			err = stream.Send(line)
		}
		var answer *Line
		if err == nil || err == io.EOF {
			answer, err = stream.Recv()
		}
		if err != nil {
			return err
		}
		each(i, answer)
	}
	if err = stream.CloseSend(); err == nil {
		_, err = stream.Recv()
	}
	return err
}

func withMetadata(request *EchoRequest) result {
	background, done := patience()
	defer done()
	context := metadata.AppendToOutgoingContext(background,
		"x-initial", "one", "x-initial", "two", "x-initial-bin", "\x00\x01\xff",
		"x-trailing", "three", "x-trailing", "four", "x-trailing-bin", "\xff\x00\n", "request_id", "interop-17")
	var initial, trailing metadata.MD
	_, err := client.Echo(context, request, grpc.Header(&initial), grpc.Trailer(&trailing))
	// Clients may send several values of a name as one, with commas between.
	text := func(values []string) string { return strings.Join(values, ", ") }
	binary := func(values []string) string { return hex.EncodeToString([]byte(text(values))) }
	return result{
		"code":         status.Code(err),
		"initial":      text(initial.Get("x-initial")),
		"initial_bin":  binary(initial.Get("x-initial-bin")),
		"trailing":     text(trailing.Get("x-trailing")),
		"trailing_bin": binary(trailing.Get("x-trailing-bin")),
		"request_id":   text(trailing.Get("request_id")),
	}
}

func wasCancelled(key string) bool {
	context, done := patience()
	defer done()
	reply, _ := client.Cancelled(context, &CancelledRequest{Key: key})
	return reply.GetCancelled()
}

func raw(path string) result {
	context, done := patience()
	defer done()
	return result{"code": status.Code(connection.Invoke(context, path, &EchoRequest{}, &EchoReply{}))}
}

var cases = map[string]func() result{
	"unary": func() result {
		reply, err := echo(&EchoRequest{Text: "grüße ✓"})
		return result{"code": status.Code(err), "text": reply.GetText()}
	},
	"unary_empty": func() result {
		reply, err := echo(&EchoRequest{})
		return result{"code": status.Code(err), "text": reply.GetText(), "bytes": len(reply.GetPayload())}
	},
	"unary_large": func() result { return echoEqual(pattern(32 << 20)) },
	"gzip": func() result {
		background, done := patience()
		defer done()
		context := metadata.AppendToOutgoingContext(background, "x-compress", "gzip")
		payload := pattern(1 << 20)
		reply, err := client.Echo(context, &EchoRequest{Payload: payload}, grpc.UseCompressor(gzip.Name))
		return result{"code": status.Code(err), "equal": bytes.Equal(reply.GetPayload(), payload)}
	},
	"server_streaming": func() result {
		count, ordered := int64(0), true
		code := numbers(&RangeRequest{Count: 5000}, func(number *Number) {
			ordered = ordered && number.Value == count
			count++
		})
		return result{"code": code, "count": count, "ordered": ordered}
	},
	"server_streaming_empty": func() result {
		count := 0
		code := numbers(&RangeRequest{}, func(*Number) { count++ })
		return result{"code": code, "count": count}
	},
	"server_streaming_large": func() result {
		sizes := []int{}
		code := numbers(&RangeRequest{Count: 4, Padding: 4<<20 + 3}, func(number *Number) {
			sizes = append(sizes, len(number.Padding))
		})
		return result{"code": code, "sizes": sizes}
	},
	"client_streaming":       func() result { return sum(5000) },
	"client_streaming_empty": func() result { return sum(0) },
	"both_ways": func() result {
		texts := []string{}
		err := chat([]*Line{{Text: "one"}, {Text: "two"}, {Text: "three"}}, func(_ int, line *Line) {
			texts = append(texts, line.Text)
		})
		return result{"code": end(err), "lines": texts}
	},
	"both_ways_large": func() result {
		var lines []*Line
		for times := 1; times <= 3; times++ {
			lines = append(lines, &Line{Payload: pattern(times*(1<<20) + times)})
		}
		count, equal := 0, true
		err := chat(lines, func(i int, answer *Line) {
			sent := lines[i].Payload
			equal = equal && len(sent) == len(answer.Payload)
			for at := 0; equal && at < len(sent); at++ {
				equal = sent[at] == answer.Payload[len(sent)-1-at]
			}
			count++
		})
		return result{"code": end(err), "count": count, "equal": equal}
	},
	"both_ways_ended_by_the_server": func() result {
		texts := []string{}
		err := chat([]*Line{{Text: "one"}, {Text: "two", Code: 9}, {}}, func(_ int, line *Line) {
			texts = append(texts, line.Text)
		})
		return result{"code": end(err), "details": status.Convert(err).Message(), "lines": texts}
	},
	"metadata":             func() result { return withMetadata(&EchoRequest{}) },
	"metadata_of_an_error": func() result { return withMetadata(&EchoRequest{Code: int32(codes.NotFound)}) },
	"error_details": func() result {
		_, err := echo(&EchoRequest{Code: int32(codes.FailedPrecondition), Details: "50 % off: naïve ✗\nsecond line"})
		return result{"code": status.Code(err), "details": status.Convert(err).Message()}
	},
	"status_details": func() result {
		background, done := patience()
		defer done()
		sent := []byte{0x08, 0x09, 0x12, 0x03, 'b', 'a', 'd'}
		context := metadata.AppendToOutgoingContext(background, "x-status-bin", string(sent))
		_, err := client.Echo(context, &EchoRequest{Code: int32(codes.FailedPrecondition), Details: "bad"})
		// The library keeps the header to itself and hands out what was in it.
		got, _ := proto.Marshal(status.Convert(err).Proto())
		return result{
			"code": status.Code(err), "details": status.Convert(err).Message(), "equal": bytes.Equal(got, sent),
		}
	},
	"every_code": func() result {
		seen := []codes.Code{}
		for code := int32(1); code <= 16; code++ {
			_, err := echo(&EchoRequest{Code: code})
			seen = append(seen, status.Code(err))
		}
		return result{"codes": seen}
	},
	"deadline": func() result {
		begin, key := time.Now(), run+"-deadline"
		context, done := context.WithTimeout(context.Background(), time.Second/2)
		defer done()
		_, err := client.Echo(context, &EchoRequest{Wait: 60, Key: key})
		soon := time.Since(begin) < 20*time.Second
		return result{"code": status.Code(err), "soon": soon, "cancelled": wasCancelled(key)}
	},
	"cancel": func() result {
		key := run + "-cancel"
		context, cancel := patience()
		defer cancel()
		stream, err := client.Range(context, &RangeRequest{Count: -1, Key: key})
		for count := 0; err == nil; count++ {
			if count == 3 {
				cancel()
			}
			_, err = stream.Recv()
		}
		return result{"code": end(err), "cancelled": wasCancelled(key)}
	},
	"unknown_method":  func() result { return raw("/interop.Interop/Nothing") },
	"unknown_service": func() result { return raw("/interop.Nothing/Echo") },
	"concurrent": func() result {
		var all sync.WaitGroup
		right := make(chan bool, 200)
		for number := 0; number < cap(right); number++ {
			text := fmt.Sprint("number ", number)
			all.Add(1)
			go func() {
				defer all.Done()
				if reply, _ := echo(&EchoRequest{Text: text}); reply.GetText() == text {
					right <- true
				}
			}()
		}
		all.Wait()
		return result{"right": len(right)}
	},
}

func main() {
	arguments := os.Args[1:]
	asked := arguments[0] == "--calls"
	if asked {
		arguments = arguments[1:]
	}
	target, files := arguments[0], arguments[1:]
	security := grpc.WithInsecure()
	if len(files) > 0 {
		authority, err := ioutil.ReadFile(files[0])
		if err != nil {
			panic(err)
		}
		config := &tls.Config{RootCAs: x509.NewCertPool()}
		if !config.RootCAs.AppendCertsFromPEM(authority) {
			panic("no certificate in " + files[0])
		}
		if len(files) > 1 {
			own, err := tls.LoadX509KeyPair(files[1], files[2])
			if err != nil {
				panic(err)
			}
			// Whatever the server asks for: one that it wouldn't take is shown too.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &own, nil
			}
		}
		security = grpc.WithTransportCredentials(credentials.NewTLS(config))
	}
	var err error
	connection, err = grpc.Dial(target, security,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytes), grpc.MaxCallSendMsgSize(messageBytes)))
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	if asked {
		makeCalls()
		return
	}
	client = NewInteropClient(connection)

	results := map[string]result{}
	for name, run := range cases {
		results[name] = run()
	}
	json.NewEncoder(os.Stdout).Encode(results)
}
