package serve

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/sallyport-iam/sallyport"
)

// decoding registers services whose requests, when their bytes cannot be
// decoded, are the client's fault: gRPC itself answers Internal, which clients
// take for ours. It needs codec.
type decoding struct{ *grpc.Server }

// RegisterService is grpc.ServiceRegistrar's.
func (d decoding) RegisterService(desc *grpc.ServiceDesc, impl any) {
	own := *desc // the generated one is everybody's
	own.Methods = slices.Clone(desc.Methods)
	for i := range own.Methods {
		handle := own.Methods[i].Handler
		own.Methods[i].Handler = func(srv any, ctx context.Context, receive func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			return handle(srv, ctx, func(req any) error {
				r := &received{req: req}
				if err := receive(r); err != nil {
					return err
				}
				return r.problem()
			}, interceptor)
		}
	}
	d.Server.RegisterService(&own, impl)
}

// received is a request and what its decoding failed with. gRPC answers the
// client itself when its codec fails, so codec does not.
type received struct {
	req any
	err error
}

func (r *received) problem() error {
	if r.err == nil {
		return nil
	}
	e := sallyport.Invalid.Errorf("the request cannot be decoded: %v", r.err)
	return statusOf(answers[e.Kind], e.Msg, e, "")
}

// codec is protobuf's.
type codec struct{ encoding.CodecV2 }

// Unmarshal is encoding.CodecV2's.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*received); ok {
		r.err = c.CodecV2.Unmarshal(data, r.req)
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
