"""The embedded clips that recordings are made of: a soft tone, two voices of it, a screen.

Made once with ffmpeg 5.1 (libmp3lame with ``-reservoir 0 -write_xing 0``, so that any frame can
follow any other; libx264 baseline with ``keyint=8``). Deflated, in base64.
"""

import base64
import zlib


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


MONO = _unpacked(
    """
    eNpNlYtTU2cah885SU7uGiCFA2Q1KIYAYTkHEGEVJgSEINENReQiOiEiBIqUOlQF1zU3ysWAqXgJeGkQYeLUnZYCre
    1AJ5GAwcVtRLsUoSWpVtEBJ2DagpsdNjRpZ78/4Jnf+76/Z77V11wzQP+ukARMutjvnpdLPvVNLRQtCNCNRhQjX5TF
    pALJWAPUx/kwOnby0uvKcz5YHn6YKAkAcWIH89JC+Rey1szGcP3qGmedrBAPTDq5pWMAIsJbp9uSWjUgO4SW1SSnDU
    myRX9iUGkZ4qPjgvdfi646ttMCrQQNyQYJUt+6RvPvOPL25nMSD0e32+XOE1pyz7qDlQkMxPbXmDaB2uEfl3T3bRSn
    6RCu0UKHr5iqzs3PxL3QUBTMvt3xGTwDZ9XzvvivJw9dXwis5fnSr5zc488i/0Ch7DXFzpIsFHK/sRk/Z8GByyPJB+
    fNMpLc9BLkGf8B8Ldwf0az1fio21SmmflI7MnDLljLw5ZxWynsUvNlNfGbmyoSADZH3rWrEujtrXoHa5t28caN2csc
    hgxZEIUbGShXqNjBghpJ2ctuEsPDIRU4gVkXm/9AivqmdDZc1tsXNLp0eW4g9T9LyC82dWChf7Fx7FTg5JeJvXX7dR
    8o9RJxE/idBGbTi79vGuKw5R4O1zNXoWGUJ8GWJ1VLetMgeNs8XWQYxUgnTDLYOhyGl49kiWj3/kn4m2kFkAjf+rBf
    8hLeQa769m3qhJTk4ZzIXXZzwg9/XItknsFdu7I13VdM6vF/DKZvQCrSiYwo2E9Gf7YxicApF5bB9BNEDr4aAByS5/
    JNsjCJT2y8zpsn17nGqY8W/KxsDmKECV+oSihjDbr2B2etAQ5J1LPgOawnor79WXD+hQ/o1vUcvAVSdKV3qhpDVFRl
    y+Pf8yR45jpo0bKKmDb6jGszSucvYklIVcxNoAPN4fehr0x0TOzTgNXLNehpAIyE+pOAiPZWYH99njJep/RwxO57zb
    4Jzeq0Gd+rvQQG3Za125UCKFxzVWq6VkmtVQfha898Rs5UM0Myf3288pFgsVE/pTSiJGrU9RvvLI0/BFa9XuDX7n7k
    AqCtPorbw5zjosF8AzrPq4yZBKewk0RVnvhF7E+q2HLfbiyboCLyA0EcuuZF7f97QRe651rtlwzspL7PZAGAXckgpS
    juD5naUN9wxTVqdisFrm1OHlmZlkUgb+RaJC/jIVmMC46usyirOOye63JvHtnaflyhJ3NX6sD0+wzVucE7ACQcVkzY
    hh/DM0YXMeFuBsg3HlC4ZkPvaZCUNCMXTz3WQ0tabd7/o5RSwfVw1t327KfgukkiVUXSt0Kqtib0qjwXO+OQYEH8d9
    A2JQl7kvIvrGpDeFJsUAL7dIzzz1g11T9ACao53I+7d3m98Oyn9CaM8PEz075JfeP+xhBR1sUo2j5rNq2GgDxgHW0h
    G4q+TdguKgOK7uyAIIh5izgMhMQF3cr6wwtJwQzw3MUmwJmNti57u4ljwLGeosW3oOuHO+xPywRnbbK0mrs+4UZZQx
    FnYuu6YulGGOYfXAeWOA5UzYxE3TB6OPkFa33mdp7yb68FOeMBXbh8AAfnP1Otz495AjlpmwlXKA+DD+x8GGvm9VGY
    sAqnBx3JxZ/AJUhcxJ5thWNevxhrvju5MmEjhVOqDj4fds+uKALIzdw++3ktXYv8pY98JeS17z5mH1bENqLHRgko0G
    lo7MGd0UdlsFltDL63h24vZh1cvl0K+BZ0EoMNc6duKtIIBdqhNlN3PymzvoIQ2HI0YKrhQE2BZmlLrxKBDBKm4ASt
    DvD3mdZV5HjvbvP6bjHyKjHbZN8iLQJX2zRwMrvDxVhRToDklmQyufl8d2Kzk7KocgAWbWSqDHw0Xg3NRAz69JuZVg
    8HdXO+cbGPd1AGmFCgz5SBCT0h9VVv5lVz2yjVd7a14J9Ed4/E6cNymPxQAqyr5sEgkgAwTd3jRzDCVibgzZPg4Wi/
    emkbKqb5fS0pBweL0xYSDhFwbyRPY0efS/FlG6Y5X5cKpAIyTDVSeGQzH5X/AjtFT3XKjmYv5w/fDRdZYuY83epSo8
    cAB5ZUJUMbjJfRHMgXa0qhYeJ9PjET/Bb0NB+IhD5NQiIUZ6H9A3uVTq/vdMdvPQz9jUOb/x5K7hKFAFTN7uPbNXsZ
    O2mIsUKT6timQSbJ91d3Ce/MM8ap8gQ89JNZ+PmxVzmLGCHOk8fg7o/bi7wuox0P74HLobuUfxfvhdZJjb3oobZ6bf
    FGXJpUorRIn++qKAuYe3dx02FLidTqz4vC40iigugB7u/9WQZ+daZdHPthtOogDqj+Kxbv7+eX/Hd0U7QKL4SH6Waf
    1KDeKD+2nphDEUJ+uFtAylDIR+NWPj/teGVujrc/dJv7v1j7d4QIJV6GY/mF2YsVdcTE5prB9y6Ymb0aRNDeq05Uf0
    bXvdoypbYKkPWKRDlACKCHIKpPEh+57/4/WvY4aQ==
    """
)
"""28 frames of 36 ms: MPEG-2 Layer III, 16 kHz, mono, 16 kbit/s, no bit reservoir."""
STEREO = _unpacked(
    """
    eNqd1v1XE1ceBvA7IQkwxBhIkCENECCJUMEmJri4Zm0Q5TWkICxFDtjhdQNVBFR0PVWTgCFRWC1VOiB4ACEl2K5rRc
    FqSwIRqaQBhIMoHosLTa3iFpTjWg/KQtlS2J92uP/AZ57nfu+9M/M8kAhIIn8C2BPupa3ZhoDvc4NK9NdepdC0h6LI
    w6JsHyut0J8o46KfkEsORNNv3bYlFBU96jOLxXwQ0rC3dNfnhCBpYONPT0oZ4q70xmeTCQOb//HsuQqp3BJyz+rY+v
    DhEx5bV6cAYGbOIt7nwmD3ME3bmgjAHVFQ+dutKKQ4XoFePGPFpnwFZTWl2BGC8ew6Jutq1+nyGK3R6ZXDnqiCghV7
    4rfTVNzQYG1TefZgSnH9alFo5YGjLXBR1vgxlz84n4+A4XABKYBhbjUZDL9aJOKcdZ+mADZhYHbtCDvMpoIyTHWx8i
    WWJFXe0N/EUNJDzEE9Wl21ZRUnMGz9M9vyWPXc91Z8imAI+L/WfK4xLnWxFTnG0xhVHTyCIn1I57Er7nBTitUOHaEF
    BXzDuuepUGYnr7+YNbwPJzVvkShcGvhwesGKTjf6T9jpG/wOrsMC0ZTKDPYExmJDCKsu4/XdE6FqItRI/4TZcFuv8W
    3UZXTyyHhyDXEZi6192D8Dihk2kWI1hSno/M6ml0qh5q4070jmZxRZCjc3ks4FiVxy/7ywEbhyEblOiztUDwACIaU9
    ZFv2rjhywLXMIw+CyWxP94zYitqm1T6uQPnEcaYk9jakW85+TczmWmTl+LZ6k4gUJNG1PBXJ+Lf+a30ssqUo6+Mwni
    6sOpritzpupVh12MgwMQZi143SbXDlAnO5fu9QFsdkObi5M97jb0qD+lz2OLMFhQCxyxWUDJG9uyFTcTjh+83ycUdp
    UNRW4VoBn48n19TSDqVxMr+fVMWIUdvYj7TsD//XJAdJhFobh3q3eTdSpF4gdPBran8+nApn+1bkaZUKXB16Oy2ejW
    TfKTExYeJt/WQC+oj+WN4NSdDDQJwa7Ki6oDZ5FEqOb32hGayOW06HxAHuEquw/OpHFDldGv28m59lc1y0AcrjbwSZ
    gsmTt1pQtrllxVrPNfqkfJyx/mtNz56vRR0ePJ3kR0S9Mn12ykU6ju2jj1pjeYwgRnpqTGO2uhQuJrtct3+n/gqCqS
    qPZSaloiie2RDPdngBgDkLkgCQVyxhXAvHUAnVUPOaxqm9INiMCZSTCgkRCz+K5n58TCHvJZlNdX+j4dLmLTaXCSwa
    AMv7pqAzJwFMSBX+Yq+ml34+BAKrrgxjWCRTNkp3zixzy3QneLUzWGJi5J0vZB4zg76yNE7bi5+19OovjswIA/OFPO
    Y0uB+QMDrjAjFEq2eevcpUnjBOeM327TNvMTY9Bj1iYN8V4QNVA4gvd+73VG5Qn2uzvufbm7KO11MUOW2SvlV3evyI
    3jTwraXtzda9O1/KL18+7x8t7zskJRFKcwQlEj/LHcSsDT7xYmO7oWM/v8szOs3ZOJZ3Y+6C+S0XAFA9GAEA5st8oA
    cA0j0VnkNowI6xkuJhgxi6aFIaJO4TDVH+qhIZxuwRBWJ7atV1B1EFvlvqd2t2wbnxCPjxiuQ8S3GXYGdUFtrWWi5k
    8RWa9ipBlGljsznJ2cJHBFUJCrnbJuRMi893uLAlln1XPAf8+KWk/Sz/hyaJD7Gj49wJKuUrKp9GLyS7lwtUDjad/b
    S6J/rCNfne9JfLelMWcoHEWWtKcnmrd5Egnw0uJll3j4Y6SUlohjlrykkCCjDEGOzF15b11Wx4tWZ6OXfUguUzZzVL
    GnQlbd3NX3ay3aveepAldDwqb3PryQ8qHcpxk+v2GtXwDu4ws+HT7Y/xnealFjbb4c9XJLpTpjNNx2ECDyrtjOzpFD
    pYXY0PDn0AW2MVb3I5atQJ9nKCtvdwTJZwPK/lUitw3jofBF0i7nckKBzHjIlSQ+5Q+33bHgt14NY4OdQIuxyziwCD
    ae+orevxXRxLLU08G9xs5lxdU4ActKcI+Txyx4rUA+6w0DZl07tQfxp3xPSnnVGghj/FiC1gvwkZxzUeSy27+f16qr
    mm+bvREOxcLHN5XzjSbLD7QPbu9aR2U6B5C+SaDyLWmt1ar//wZjn/UQszX5P468xfyi5g3KuN0RA+QzyYxFPooH9I
    3mt5aoTrzb/oIhSK27/U9+44e2kA55PyP7nY8ay5XLOzUe1cv4qIiU17Vz0862B1IeRkdlsyY5R/PHSHWTvifaMvsX
    cf8TMOPm2ppYinzd0bFWXiD0fSCWwa4hxSQLmrCe9ksf12hyeTC9AcniGGEp0v5Z2Enw5rknGdsP8AYCIaCg==
    """
)
"""28 frames of 36 ms: MPEG-2 Layer III, 16 kHz, stereo, 24 kbit/s, no bit reservoir."""
SCREEN = _unpacked(
    """
    eNq1VH1QE2caf/MBCUoNglhbU1hA7IcQNh8iX2uSoiNXv7izrZWPSzabxaRskmV3o0muSAgq6Z1XbMezQKcMUzumtn
    PgOPacYtVYWnWqPa+1HtBex8BZBkavbq/1TG2OvXej6PXu7z7zzrPP+76/52Of57cLgNSdmiIIz/9t9fSJybGaY/uL
    RpGxgm9u+HSlBqQYITwMiWihyejR8uWIDSdJA4rCixoNBJSsr129ptiAmJ+thkg7ScCLag/tp8gmDtGhqL5Yh+p08N
    DBcXRFScn27ds125x20kPhbo2H2VoiZtE4OBcFMR6ac3rcbAVC4DacwFCEIZswbSliJ22Uh2jGtBVoBYrgbpzysySG
    +uDep9VrEReJeV0OhPXaoKVFEZr1Y1pRWxg7ptWg0AsqxOX0kXZLMiZ0sTC4eyuJ6QwI4WA8Ltwi+iIcQ1KUk8V0SJ
    mvzE5wsAiixQW1ncTtAY8bOmiLtFqkCWc5C802O2nodDdAC23xNDWxJIcV6xDOwUAPFtMjlMfTjDvgxjJ7pkVYykmQ
    9w9QxM0kcxBOF86JdTjdHMlQOATBcxvlZXC/hfC4aDxZEWwSx+BONwwBgQwuYpoY3EWKobaTzq0OjoZWM+mH11jZXc
    Picrqx5QhLkG6S8IqBks5iRxiSdYj9Jiz3qoVuDIERTBPissGuiEXBDaY3aFCkRSwFQzWl0KTFqMkn7sNKy6HBciSN
    GRAnDVsMBwonYIBTa4HjE2cBggBIDWQ4lCvEE6W7gIIvB3gPAaS7g8tKX2OmvX/8PxkU4tZoxkXZTvXV3LSadJli5K
    v/upypqlC+BGIFQufUwp3BqYL+k3kGhWzuK+qHNpf+Ccqp+J6Vc2nf8pWmPx8Z7nBPdp8Kxq3qqufUcnnO+ZM/3jiZ
    eMH4w4LKRu47dEufffGDzebK+vot3QEqAgtc6ugHW6NTBUe6UlffutJ668qOKl9bZ4x/PhCqC1j3tuq6CweGrkUiYh
    y4hqanp68NQC2M8+N8sywsf0QRnpEksNPnUiO1RGOj1zvSyMXb0GhZsdwE6hsm9uwejFcOryEeXDGVOGwfsK31ntm0
    33tCfDHVWZX1XZPp96N/eCdmKHyF6Px3LMtyVHWwLrQY5hBX5DN12/XsEMg4uCRw+bZPXQTUK0AKmP9VYOmT1lD+Wi
    T8aukZ6mzPhvrDblejGHNYGF0WXZ93/NlBvFYSareuA+GPx/Kz+kzhY9qXThyRnfua3Vhb3QirFAv9/nRWb25X15t1
    UAKBu0kH+vr6knpotopIRNQJJJd/epHheNvr/vzme/J3lfAoiBpjb9HBtDeygqvfxEZ+16HnNwyu8+u/2AbH877cOD
    On++m984L67IO5b99KyHcs+7XQm9t7qPluviExfV19AwBAbe5VG6V7w4/vUk1UXRGU1TOPgTRu8kOj6pw0H94Xmnuf
    UEU/bZ0UZtAnD5cp0zM7fvCplfMyO9Je+0AiLBltmzGVmyBQYe6tVEV9UWguMPf+QsYvz5nD8j2JmYQivMjaErwD2V
    LN56DQXGjudXbwGYpQd82Vb5U+5LdA2rgyJX4H5B9OgqTryXC7rE3oGqZqQWVcLZUMP2QzSfL6wXq84UjD+0ONTsir
    /xGLwJ8uWrSkI/HCtSd095smdKmUXY9L2uJtKW+AGIK/VdIeRccRaTtPNvBVu9g7oPBw7CiX88AGeypzft4Dx3sO/N
    MDmb1YZaUzMn6jEQn5LS9crV0D5/gdR38G5cLpFc8IidadH34EJBKjLJReuI/ueLk1SeyunNzxeJn585uqS5cuwfFf
    Gtl4jwbf34T6pjA8fjiOtkdN1n05BXEFf0shlR36PHvkVyObIWxjZzxdZj2aCfKc0vJP6k5NSM+lAwOVJnz6ZQlA/3
    HhgnLd1++KMh4fvL4wJjuUORZblLVpXGNOe7E79vp1ql+++cDY3sB0qG6WV7yQyA5ZMw4uDVy+iJY9BxYYoqB/s3eq
    Jy2kfLEolN9wRjM5mh4p3veN61GxI7wQX0Zn1bgvvzNqBe/ltZ8Hq0jq5bSLyKr67rN9X8hGn5ocss7Sdno6tGZFwL
    QfSt9Q4KdUHrgPSn7OglKRyE4Jlm+77f/rR/f/PHuMiexCTySeKplp/2UoqJK1Rw1R+b9Whc0/Xp74IEXPy89/Offm
    xF8KjMmBRauF2NvzM9G1FHg13JNuvH1CAE+9138Msv2RAw/Pfk3JdUMk5sMi2WXo7jktOR5hZ56wAMiHWFtu51XJ/J
    +X6qGfUn3TjntUPwvj/AcGwJGz
    """
)
"""16 pictures in two groups of eight: H.264 baseline, 320x180, a second each."""
SCREEN_SIZES = (1194, 32, 41, 11, 24, 11, 26, 11, 593, 30, 41, 11, 24, 11, 26, 11)
"""Bytes of each picture of SCREEN."""
SCREEN_AVCC = bytes.fromhex(
    "0142c015ffe1001a6742c015a61105067e7c044000000300400000030083c58b846001000668c8420212c8"
)
"""The decoder configuration record of SCREEN (ISO/IEC 14496-15)."""
