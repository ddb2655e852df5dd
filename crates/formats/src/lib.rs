//! Byte formats, pure: fragmented MP4, HLS playlists, Ogg, MP3 and ID3: write and parse.
