//! PEM encryption of before PKCS#8: `DEK-Info` names a cipher and its IV (RFC 1421 §4.6.1.3),
//! OpenSSL derives the key.
//!
//! Read only, for CA keys that were made long ago. MD5 and single-round derivation are what those
//! files have.

use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use md5::{Digest as _, Md5};

use crate::hex;

/// The derivation's salt is the IV's first bytes (OpenSSL, `PEM_do_header`).
const SALT_BYTES: usize = 8;

/// Why a traditional PEM block stays closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LegacyError {
    /// The header names a cipher that we don't have, or no IV.
    Cipher,
    /// The result is not padded as it should be: most likely the passphrase is wrong.
    Passphrase,
}

/// Decrypts `ciphertext` as `dek_info` (`DES-EDE3-CBC,0011223344556677`) says. A wrong passphrase
/// may give garbage.
pub(crate) fn decrypt(
    dek_info: &str,
    passphrase: &[u8],
    ciphertext: &[u8],
) -> Result<Vec<u8>, LegacyError> {
    let (cipher, iv) = dek_info.split_once(',').ok_or(LegacyError::Cipher)?;
    let iv = hex::decode(iv.trim()).ok_or(LegacyError::Cipher)?;
    let salt = *iv.first_chunk::<SALT_BYTES>().ok_or(LegacyError::Cipher)?;
    let key = |bytes| derive(passphrase, salt, bytes);
    match cipher.trim() {
        "DES-EDE3-CBC" => open::<Decryptor<des::TdesEde3>>(&key(24), &iv, ciphertext),
        "AES-128-CBC" => open::<Decryptor<aes::Aes128>>(&key(16), &iv, ciphertext),
        "AES-192-CBC" => open::<Decryptor<aes::Aes192>>(&key(24), &iv, ciphertext),
        "AES-256-CBC" => open::<Decryptor<aes::Aes256>>(&key(32), &iv, ciphertext),
        _ => Err(LegacyError::Cipher),
    }
}

fn open<D: KeyIvInit + BlockModeDecrypt>(
    key: &[u8],
    iv: &[u8],
    ciphertext: &[u8],
) -> Result<Vec<u8>, LegacyError> {
    let cipher = D::new_from_slices(key, iv).map_err(|_| LegacyError::Cipher)?;
    cipher.decrypt_padded_vec::<Pkcs7>(ciphertext).map_err(|_| LegacyError::Passphrase)
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and a count of one: D₁ = MD5(passphrase ‖ salt), Dᵢ =
/// MD5(Dᵢ₋₁ ‖ passphrase ‖ salt); the key is the first `bytes` of D₁ ‖ D₂ ‖ ….
fn derive(passphrase: &[u8], salt: [u8; SALT_BYTES], bytes: usize) -> Vec<u8> {
    let mut key = Vec::new();
    let mut block = Vec::new();
    while key.len() < bytes {
        block.extend_from_slice(passphrase);
        block.extend_from_slice(&salt);
        block = Md5::digest(&block).to_vec();
        key.extend_from_slice(&block);
    }
    key.truncate(bytes);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl enc -des-ede3-cbc -md md5 -k foobar -S 0102030405060708 -P`.
    #[test]
    fn the_derivation_is_openssls() {
        let key = derive(b"foobar", [1, 2, 3, 4, 5, 6, 7, 8], 24);
        let expected = hex::decode("BBF524D03724203D962A37594DDA4BA72559204447114296").unwrap();
        assert_eq!(key, expected);
    }

    #[test]
    fn headers_that_are_not_understood_are_refused() {
        for dek_info in
            ["", "DES-EDE3-CBC", "DES-CBC,0102030405060708", "AES-128-CBC,zz", "AES-128-CBC,01"]
        {
            assert_eq!(decrypt(dek_info, b"x", &[0; 16]), Err(LegacyError::Cipher), "{dek_info}");
        }
        let short_iv = decrypt("AES-128-CBC,0102030405060708", b"x", &[0; 16]);
        assert_eq!(short_iv, Err(LegacyError::Cipher));
    }

    #[test]
    fn a_cut_ciphertext_does_not_open() {
        for length in [0, 7, 9] {
            let result = decrypt("DES-EDE3-CBC,0102030405060708", b"x", &vec![0; length]);
            assert_eq!(result, Err(LegacyError::Passphrase), "{length}");
        }
    }
}
