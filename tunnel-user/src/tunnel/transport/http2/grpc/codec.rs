//! Encodes messages as tonic does, with buffers that are made when there is a message. By itself tonic makes 8 KiB
//! for each direction of each call when that begins: of all that an idle control stream takes, most.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// What the generated code uses; see the build script.
pub(crate) struct LazyCodec<T, U>(PhantomData<(T, U)>);

fn buffers() -> BufferSettings {
    // Messages that are ready together are sent together, up to tonic's own default.
    BufferSettings::new(0, 32 * 1024)
}

impl<T, U> Default for LazyCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LazyCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(buffers())
    }
}
